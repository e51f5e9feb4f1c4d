// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

@Suite struct GraphBuilderTests {
    @Test func firstFailureSurfacesInFinish() throws {
        let builder = GraphBuilder(name: "bad")
        let x = SampleGraph.rows(builder, 6)
        builder.scope("layers.2") {
            let wrong = x.linear(builder.parameter("w", [5, 7]))
            _ = wrong + x.activation("unknown")
        }
        let error = #expect(throws: MartletError.self) { try builder.finish() }
        #expect(error?.code == .shapeMismatch)
        #expect(error?.message.contains("needs x [R, K] and w [N, K]") == true)
        #expect(error?.context["path"] == "layers.2")
    }

    @Test func failureWithoutOperandsSurfaces() {
        let builder = GraphBuilder(name: "bad")
        builder.output("y", builder.record("invented", []))
        #expect(throws: MartletError.self) { try builder.finish() }
    }

    @Test func modelsOwnFailureWinsIfFirst() {
        let builder = GraphBuilder(name: "bad")
        builder.fail(MartletError(.unsupported, "first"))
        builder.fail(MartletError(.corrupt, "second"))
        let error = #expect(throws: MartletError.self) { try builder.finish() }
        #expect(error?.message == "first")
    }

    @Test func sourcesAreSharedByName() throws {
        let builder = GraphBuilder(name: "shared")
        let w = builder.parameter("w", [4, 4])
        #expect(builder.parameter("w", [4, 4]).value == w.value)
        #expect(builder.input("tokens").value == builder.input("tokens").value)
    }

    @Test func scopesMakePaths() throws {
        let builder = GraphBuilder(name: "paths")
        let x = SampleGraph.rows(builder, 6)
        let y = builder.scope("layers.0") { builder.scope("mlp") { x.activation("silu") } }
        builder.output("y", y)
        let graph = try builder.finish()
        #expect(graph.producer(of: y.value)?.path == "layers.0.mlp")
    }
}

@Suite struct GraphSortTests {
    @Test func movesOperandsBeforeUsers() throws {
        var graph = Graph(name: "g")
        let type = TensorType(.f32, [.T, 4])
        let a = graph.insert("parameter", [], ["name": "a"], results: [type], path: "a")[0]
        let b = try graph.insert("scale", [a], ["factor": 2.0], path: "b")[0]
        let c = try graph.insert("scale", [a], ["factor": 3.0], path: "c")[0]
        graph.update(b.node) { $0.operands = [c] }
        #expect(throws: MartletError.self) { try GraphVerifier.verify(graph) }
        try graph.sort()
        #expect(graph.nodes.map(\.path) == ["a", "c", "b"])
        try GraphVerifier.verify(graph)
        let order = graph.order
        try graph.sort()
        #expect(graph.order == order)
    }

    @Test func keepsOrderOfSharedOperands() throws {
        let graph = try SampleGraph.all[4].build()
        var sorted = graph
        try sorted.sort()
        #expect(sorted.order == graph.order)
    }

    @Test(arguments: [1, 2, 5])
    func refusesCycles(length: Int) throws {
        var graph = Graph(name: "round")
        let type = TensorType(.f32, [.T, 4])
        let start = graph.insert("parameter", [], ["name": "a"], results: [type], path: "a")[0]
        var values: [ValueID] = []
        for _ in 0..<length {
            values += try graph.insert(
                "scale", [values.last ?? start], ["factor": 2.0], path: "s")
        }
        let last = values[length - 1]
        graph.update(values[0].node) { $0.operands = [last] }
        let error = #expect(throws: MartletError.self) { try graph.sort() }
        #expect(error?.message.contains("cycle") == true)
    }
}

@Suite struct DecompositionTypeTests {
    /// A fused op and what it stands for have the same types, and removing it leaves a valid graph.
    @Test(arguments: SampleGraph.all, [DType.f32, .f16])
    func decompositionHasTheOpsTypes(_ sample: SampleGraph, dtype: DType) throws {
        var graph = try sample.build(dtype: dtype)
        while let (node, results) = try decomposeFirst(&graph) {
            #expect(results.map { graph.type(of: $0) } == node.results.map(Optional.some))
            for (index, value) in results.enumerated() {
                graph.replaceUses(of: node.value(index), with: value)
            }
            graph.remove([node.id])
            try GraphVerifier.verify(graph)
        }
        let fused = ["addNorm", "gatedActivation", "cachedAttention"]
        #expect(graph.nodes.allSatisfy { !fused.contains($0.op) })
        #expect(graph.nodes.allSatisfy { $0.op == "quantize" || $0.attributes["format"] == nil })
    }

    private func decomposeFirst(_ graph: inout Graph) throws -> (Node, [ValueID])? {
        for node in graph.nodes {
            guard let decompose = try graph.ops.definition(of: node.op).decompose else { continue }
            let results = try decompose(node, &graph)
            if !results.isEmpty { return (node, results) }
        }
        return nil
    }
}
