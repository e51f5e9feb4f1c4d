// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletFormats
import MartletGraph
import MartletModels
import MartletTestSupport
import Testing

/// Two entry points over two tables, each a look-up table in one and a head in the other.
private struct CrossedTables: ModelArchitecture {
    static let names = ["CrossedTables"]
    var entryPoints = ["decode", "other"]
    /// Shape of table `b` in the second entry point.
    var secondShape = [48, 32]
    let summary = ModelSummary(
        architecture: "crossed-tables", layerCount: 0, hiddenSize: 32, intermediateSize: 0,
        headCount: 1, kvHeadCount: 1, headDim: 32, vocabularySize: 48, maxContext: 64)

    init(_ configuration: ConfigurationReader) throws {}
    init() {}

    func record(_ entryPoint: String, _ builder: GraphBuilder) {
        let names = entryPoint == "decode" ? ["a", "b"] : ["b", "a"]
        func table(_ name: String) -> Tensor {
            builder.parameter(name, name == "b" && entryPoint != "decode" ? secondShape : [48, 32])
        }
        let x = builder.input("tokens").embedding(table(names[0]))
        builder.output("scores", x.linear(table(names[1])))
    }
}

/// The CPU's kernels, with look-up tables wanted in a layout of their own.
private let mixedCatalog = ChangedCatalog { family in
    guard family.op == "embedding" else { return [family] }
    var own = family
    own.evaluate = { query in
        guard case .accepted(let cost, let layouts) = family.evaluate(query) else {
            return family.evaluate(query)
        }
        return .accepted(cost: cost, layouts: [nil] + layouts.dropFirst())
    }
    return [own]
}

/// Parameters that several entry points name.
@Suite struct SharedParameterTests {
    private let weights = RandomWeights(seed: 12)

    private func compile(_ model: CrossedTables) throws -> CompiledModel {
        try CompiledModel(model, weights: weights, catalog: mixedCatalog)
    }

    @Test func aWeightInTwoLayoutsIsTwoParametersWhateverComesFirst() throws {
        let model = try compile(CrossedTables())
        #expect(
            model.plans.map { $0.parameters.map { "\($0.name) \($0.layout)" } } == [
                ["a rows", "b panel16.f32"], ["b rows", "a panel16.f32"],
            ])
        var reversed = CrossedTables()
        reversed.entryPoints.reverse()
        #expect(Set(try compile(reversed).order) == Set(model.order))
        #expect(model.order.count == 4)

        let file = TemporaryFile()
        try model.write(to: file.path, summary: CrossedTables().summary)
        let engine = try EngineFileReader.open(file.path)
        for name in ["decode", "other"] {
            let plan = try engine.plan(entryPoint: name, for: EngineTarget("cpu"))
            let bytes = try engine.parameters(of: plan, for: EngineTarget("cpu"))
            for (parameter, view) in zip(plan.parameters, bytes) {
                let value = try mixedCatalog.unpack(
                    view, layout: parameter.layout, format: .plain(.f32), shape: parameter.shape)
                guard case .plain(let tensor) = value,
                    case .plain(let expected) = try weights.weight(parameter.name, shape: [48, 32])
                else {
                    Issue.record("\(parameter) is not plain")
                    continue
                }
                #expect(tensor.bytes.hasSameBytes(as: expected.bytes), "\(parameter)")
            }
        }
    }

    @Test func aNameOfTwoShapesIsTwoParameters() throws {
        var model = CrossedTables()
        model.secondShape = [40, 32]
        let shapes = try compile(model).order.filter { $0.name == "b" }.map(\.shape)
        #expect(shapes == [[48, 32], [40, 32]])
    }

    private func graph(_ name: String, _ change: (inout Graph) throws -> Void) throws -> Graph {
        var graph = try CrossedTables().trace("decode")
        graph.name = name
        try change(&graph)
        return graph
    }

    @Test func oneNameForTwoSourcesIsRefused() throws {
        let graphs = [
            try graph("decode") { _ in },
            try graph("other") { graph in
                for node in graph.nodes where node.path == "a" {
                    graph.update(node.id) { $0.attributes["source"] = "cast(b[48x32])" }
                }
            },
        ]
        let error = #expect(throws: MartletError.self) {
            try Compiler.emit(graphs, for: CPUCatalog())
        }
        #expect(error?.code == .unsupported)
        #expect(
            error?.message == "two entry points make 'a' of a[48x32] and of cast(b[48x32])")
    }

    @Test func oneNameForTwoConstantsIsRefused() throws {
        func withConstant(_ name: String, _ value: Float) throws -> Graph {
            try graph(name) { $0.constants["rotary"] = try TensorData([value], shape: [1]) }
        }
        let same = try [withConstant("decode", 1), withConstant("other", 1)]
        #expect(try Compiler.constants(of: same).count == 1)
        let other = try [withConstant("decode", 1), withConstant("other", 2)]
        let error = #expect(throws: MartletError.self) { try Compiler.constants(of: other) }
        #expect(error?.code == .unsupported && error?.mend != nil)
    }
}
