// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The executable specification of a graph: a list of rules that every graph satisfies after every pass.
public enum GraphVerifier {
    /// One rule of the specification.
    struct Rule: Sendable {
        let name: String
        let check: @Sendable (Graph) throws -> Void
    }

    /// The specification, in the order in which it is checked.
    static let rules: [Rule] = [
        Rule(name: "operands precede their users and exist", check: checkOrder),
        Rule(name: "nodes follow their op's definition", check: checkDefinitions),
        Rule(name: "result types are those the op implies", check: checkTypes),
        Rule(name: "sources are named once", check: checkSources),
        Rule(name: "KV groups have names of their own", check: checkGroups),
        Rule(name: "attention names a KV layer that exists and was written", check: checkCache),
        Rule(name: "outputs exist and have distinct names", check: checkOutputs),
    ]

    /// Checks all rules.
    ///
    /// - Throws: `MartletError` naming the rule, the node and its module path.
    public static func verify(_ graph: Graph) throws {
        for rule in rules {
            do {
                try rule.check(graph)
            } catch let error as MartletError {
                throw MartletError(
                    error.code, "graph \(graph.name) breaks '\(rule.name)': \(error.message)",
                    context: error.context, cause: error.cause)
            }
        }
    }

    private static func failure(_ node: Node, _ message: String) -> MartletError {
        MartletError(
            .shapeMismatch, "\(node.op) of '\(node.path)': \(message)", context: ["path": node.path]
        )
    }

    private static func checkOrder(_ graph: Graph) throws {
        var seen: Set<ValueID> = []
        for node in graph.nodes {
            for case let operand? in node.operands where !seen.contains(operand) {
                throw failure(node, "reads a value that nothing before it makes")
            }
            for index in node.results.indices { seen.insert(node.value(index)) }
        }
    }

    private static func checkDefinitions(_ graph: Graph) throws {
        for node in graph.nodes {
            let definition = try graph.ops.definition(of: node.op)
            let limit = definition.operands.count
            guard node.operands.count <= limit || definition.isVariadic else {
                throw failure(node, "has \(node.operands.count) operands, at most \(limit) allowed")
            }
            for (index, operand) in definition.operands.enumerated() where !operand.isOptional {
                guard index < node.operands.count, node.operands[index] != nil else {
                    throw failure(node, "lacks operand '\(operand.name)'")
                }
            }
            for name in definition.requiredAttributes where node.attributes[name] == nil {
                throw failure(node, "lacks attribute '\(name)'")
            }
            let known = definition.requiredAttributes + definition.optionalAttributes
            for name in node.attributes.keys.sorted() where !known.contains(name) {
                throw failure(node, "has an unknown attribute '\(name)'")
            }
        }
    }

    private static func checkTypes(_ graph: Graph) throws {
        let sources: Set = ["input", "parameter", "constant"]
        for node in graph.nodes where !sources.contains(node.op) {
            let implied: [TensorType]
            do {
                implied = try graph.impliedResults(of: node, attributes: node.attributes)
            } catch let error as MartletError {
                throw failure(node, error.message)
            }
            guard implied == node.results else {
                throw failure(node, "has type \(node.results) where \(implied) is implied")
            }
        }
    }

    private static func checkSources(_ graph: Graph) throws {
        var names: Set<String> = []
        for node in graph.nodes where ["input", "parameter", "constant"].contains(node.op) {
            guard let name = node.attributes["name"]?.string, names.insert(name).inserted else {
                throw failure(node, "has no name or one that is taken")
            }
            guard node.results.count == 1 else { throw failure(node, "must have one result") }
            if node.op == "constant", graph.constants[name] == nil {
                throw failure(node, "has no value")
            }
        }
    }

    private static func checkGroups(_ graph: Graph) throws {
        var names: Set<String> = []
        for group in graph.kvGroups where !names.insert(group.name).inserted {
            throw MartletError(
                .shapeMismatch, "two KV groups are named '\(group.name)'",
                mend: "Give each group of a model its own name")
        }
    }

    private static let cacheOps: Set = ["kvWrite", "cache", "attention", "cachedAttention"]

    private static func checkCache(_ graph: Graph) throws {
        var written: Set<[Int]> = []
        for node in graph.nodes where cacheOps.contains(node.op) {
            guard let index = node.attributes["group"]?.int, graph.kvGroups.indices.contains(index)
            else { throw failure(node, "names KV group that the graph does not declare") }
            let group = graph.kvGroups[index]
            guard let layer = node.attributes["layer"]?.int, 0..<group.layerCount ~= layer else {
                throw failure(node, "names a layer outside 0 ..< \(group.layerCount)")
            }
            guard node.attributes["kvHeadCount"]?.int == group.kvHeadCount,
                node.attributes["headDim"]?.int == group.headDim
            else { throw failure(node, "differs from its KV group in heads or head size") }
            if ["kvWrite", "cachedAttention"].contains(node.op) { written.insert([index, layer]) }
            if ["attention", "cachedAttention"].contains(node.op) {
                try checkReading(node, group, graph)
            }
        }
        for node in graph.nodes where node.op == "cache" {
            let place = ["group", "layer"].compactMap { node.attributes[$0]?.int }
            guard !written.contains(place) else {
                throw failure(node, "reads a layer that the graph writes: use what `kvWrite` gives")
            }
        }
    }

    /// An encoder's tokens lie at positions of their own: each row sees all of them.
    private static func checkReading(_ node: Node, _ group: KVGroup, _ graph: Graph) throws {
        if group.kind == .crossAttention, node.attributes["causal"]?.bool != false {
            throw failure(node, "is causal over an encoder's tokens, of KV group '\(group.name)'")
        }
        guard node.op == "attention", node.operands.count > 1, let cache = node.operands[1],
            let source = graph.producer(of: cache)
        else { return }
        for name in ["group", "layer"] where source.attributes[name] != node.attributes[name] {
            throw failure(node, "names another \(name) than the \(source.op) it reads")
        }
    }

    private static func checkOutputs(_ graph: Graph) throws {
        var names: Set<String> = []
        for output in graph.outputs {
            guard graph.type(of: output.value) != nil else {
                throw MartletError(
                    .shapeMismatch, "output '\(output.name)' is not made by any node")
            }
            guard names.insert(output.name).inserted else {
                throw MartletError(.shapeMismatch, "two outputs are named '\(output.name)'")
            }
        }
    }
}
