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
            let types = node.operands.map { $0.flatMap(graph.type(of:)) }
            let implied: [TensorType]
            do {
                implied = try graph.ops.definition(of: node.op).infer(
                    OpContext(op: node.op, operands: types, attributes: node.attributes))
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

    private static func checkCache(_ graph: Graph) throws {
        for node in graph.nodes where ["kvWrite", "cachedAttention", "attention"].contains(node.op)
        {
            guard let group = node.attributes["group"]?.int, graph.kvGroups.indices.contains(group)
            else { throw failure(node, "names KV group that the graph does not declare") }
            let declared = graph.kvGroups[group]
            guard let layer = node.attributes["layer"]?.int, 0..<declared.layerCount ~= layer else {
                throw failure(node, "names a layer outside 0 ..< \(declared.layerCount)")
            }
            guard node.attributes["kvHeadCount"]?.int == declared.kvHeadCount,
                node.attributes["headDim"]?.int == declared.headDim
            else { throw failure(node, "differs from its KV group in heads or head size") }
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
