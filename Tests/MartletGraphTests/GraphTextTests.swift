// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

@Suite struct GraphTextTests {
    @Test func samplesShowEveryOp() throws {
        let shown = try SampleGraph.all.reduce(into: Set<String>()) { set, sample in
            set.formUnion(try sample.build().opCounts.keys)
        }
        let missing = OpSet.builtIn.definitions.map(\.name).filter { !shown.contains($0) }
        #expect(missing == [])
    }

    @Test(arguments: SampleGraph.all, [DType.f32, .bf16])
    func printedTextReadsBack(_ sample: SampleGraph, dtype: DType) throws {
        let graph = try sample.build(dtype: dtype)
        let parsed = try Graph(text: graph.text, constants: graph.constants)
        #expect(parsed.text == graph.text)
        #expect(parsed.kvGroups == graph.kvGroups)
        #expect(parsed.opCounts == graph.opCounts)
        #expect(parsed.outputs.map(\.name) == graph.outputs.map(\.name))
        try GraphVerifier.verify(parsed)
        for (a, b) in zip(graph.nodes, parsed.nodes) {
            #expect(a.attributes == b.attributes)
            #expect(a.results == b.results)
            #expect(a.path == b.path)
        }
    }

    @Test(
        arguments: [
            .int(-7), .int(.max), .float(1e-5), .float(-2.5e300), .float(.infinity), .float(3),
            .bool(true), .bool(false), .ints([]), .ints([1, -2, 3]), .string(""),
            .string("two words, {and} [brackets] = %1"),
            .string("a \"quote\" and a \\ and\na line"),
        ] as [AttributeValue])
    func attributesReadBack(_ value: AttributeValue) throws {
        var graph = Graph(name: "values")
        graph.insert("constant", [], ["v": value], results: [TensorType(.f32, [])], path: "p")
        let parsed = try Graph(text: graph.text)
        #expect(parsed.nodes.first?.attributes == ["v": value])
        #expect(parsed.text == graph.text)
    }

    @Test func quantizedTypesReadBack() throws {
        let text = """
            graph q {
              %0 = parameter {name="w"} : int4.g64.min.f16[5, 128] @w
              %1 = input {name="tokens"} : i32[T] @tokens
              %2 = embedding(%0, %1) {dtype="f32"} : f32[T, 128] @embed
              return x=%2
            }

            """
        let graph = try Graph(text: text)
        try GraphVerifier.verify(graph)
        #expect(graph.text == text)
        let scheme = QuantizationScheme(
            bits: 4, group: .group(64), scaleType: .f16, zero: .floatMinimum)
        #expect(graph.nodes[0].results[0].format == .weight(scheme))
    }

    @Test(arguments: [
        "", "graph", "graph g", "graph g {", "graph g {\n  return", "graph g {\n}\nmore",
        "graph g {\n  %0 = input : i32[T]\n  %0 = input : i32[T]\n}",
        "graph g {\n  %0 = add(%1, %2) : f32[T]\n}", "graph g {\n  %0 = x : f33[T]\n}",
        "graph g {\n  %0 = x : f32[T*T]\n}", "graph g {\n  %0 = x : f32[99999999999999999999]\n}",
        "graph g {\n  %0, %1 = x : f32[T]\n}", "graph g {\n  %0 = x {a=1, a=2} : f32[T]\n}",
        "graph g {\n  %0 = x {a=\"open} : f32[T]\n}", "graph g {\n  kv layers=-1 heads=1 dim=1\n}",
        "graph g {\n  kv heads=1\n}", "graph g {\n  kv layers=1 heads=1 dim=1 color=red\n}",
    ])
    func brokenTextIsRefused(_ text: String) {
        #expect(throws: MartletError.self) { try Graph(text: text) }
    }
}
