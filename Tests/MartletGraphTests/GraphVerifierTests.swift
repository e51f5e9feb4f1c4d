// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

@Suite struct GraphVerifierTests {
    /// A graph that breaks one rule, and words of the message.
    struct Broken: Sendable, CustomTestStringConvertible {
        let rule: String
        let words: String
        let make: @Sendable () throws -> Graph
        var testDescription: String { "\(rule): \(words)" }
    }

    private static func sample(_ name: String) throws -> Graph {
        guard let sample = SampleGraph.all.first(where: { $0.name == name }) else {
            throw MartletError(.notFound, "no sample \(name)")
        }
        return try sample.build()
    }

    private static func changed(
        _ name: String, op: String, _ change: @escaping @Sendable (inout Node) -> Void
    ) -> @Sendable () throws -> Graph {
        {
            var graph = try sample(name)
            for node in graph.nodes where node.op == op { graph.update(node.id, change) }
            return graph
        }
    }

    static let broken: [Broken] = [
        Broken(rule: "operands precede their users and exist", words: "nothing before it makes") {
            var graph = try sample("linear")
            guard let first = graph.nodes.first(where: { $0.op == "embedding" }) else {
                return graph
            }
            graph.remove([first.id])
            return graph
        },
        Broken(
            rule: "nodes follow their op's definition", words: "at most 2",
            make: changed("elementwise", op: "add") { $0.operands.append($0.operands[0]) }),
        Broken(
            rule: "nodes follow their op's definition", words: "lacks operand 'y'",
            make: changed("elementwise", op: "mul") { $0.operands[1] = nil }),
        Broken(
            rule: "nodes follow their op's definition", words: "lacks attribute 'cap'",
            make: changed("elementwise", op: "softCap") { $0.attributes = [:] }),
        Broken(
            rule: "nodes follow their op's definition", words: "unknown attribute 'color'",
            make: changed("elementwise", op: "scale") { $0.attributes["color"] = 1 }),
        Broken(
            rule: "nodes follow their op's definition", words: "no op named 'invented'",
            make: changed("elementwise", op: "scale") { $0.op = "invented" }),
        Broken(
            rule: "result types are those the op implies", words: "is implied",
            make: changed("linear", op: "linear") { $0.results = [TensorType(.f32, [.T, 4])] }),
        Broken(
            rule: "result types are those the op implies", words: "'kind' must be one of",
            make: changed("norm", op: "norm") { $0.attributes["kind"] = "odd" }),
        Broken(rule: "sources are named once", words: "one that is taken") {
            var graph = try sample("linear")
            for node in graph.nodes where node.op == "parameter" {
                graph.update(node.id) { $0.attributes["name"] = "same" }
            }
            return graph
        },
        Broken(rule: "sources are named once", words: "has no value") {
            var graph = try sample("attention")
            graph.constants = [:]
            return graph
        },
        Broken(rule: "attention names a KV layer that exists and was written", words: "declare") {
            var graph = try sample("attention")
            graph.kvGroups = []
            return graph
        },
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "outside 0 ..< 2",
            make: changed("attention", op: "kvWrite") { $0.attributes["layer"] = 2 }),
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "differs from its KV group"
        ) {
            var graph = try sample("attention")
            graph.kvGroups[0].headDim = 16
            return graph
        },
        Broken(rule: "KV groups have names of their own", words: "named 'self'") {
            var graph = try sample("attention")
            graph.kvGroups[1].name = "self"
            return graph
        },
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "another layer than the kvWrite",
            make: changed("attention", op: "kvWrite") { $0.attributes["layer"] = 0 }),
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "another group than the cache",
            make: changed("cache", op: "attention") {
                $0.attributes["group"] = 0
            }),
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "causal over an encoder's tokens",
            make: changed("attention", op: "attention") { $0.attributes["causal"] = true }),
        Broken(
            rule: "attention names a KV layer that exists and was written",
            words: "a layer that the graph writes"
        ) {
            var graph = try sample("attention")
            try graph.insert(
                "cache", [], ["group": 0, "layer": 1, "kvHeadCount": 2, "headDim": 8], path: "c")
            return graph
        },
        Broken(rule: "outputs exist and have distinct names", words: "two outputs are named 'y'") {
            var graph = try sample("attention")
            graph.outputs.append(graph.outputs[0])
            return graph
        },
        Broken(rule: "outputs exist and have distinct names", words: "not made by any node") {
            var graph = try sample("linear")
            let last = graph.outputs[0].value.node
            graph.remove([last])
            return graph
        },
    ]

    @Test(arguments: broken)
    func brokenGraphIsNamed(_ case: Broken) throws {
        let graph = try `case`.make()
        let error = #expect(throws: MartletError.self) { try GraphVerifier.verify(graph) }
        #expect(
            error?.message.contains("breaks '\(`case`.rule)'") == true, "\(error?.message ?? "")")
        #expect(error?.message.contains(`case`.words) == true, "\(error?.message ?? "")")
    }

    @Test func samplesPass() throws {
        for sample in SampleGraph.all { try GraphVerifier.verify(try sample.build()) }
    }
}
