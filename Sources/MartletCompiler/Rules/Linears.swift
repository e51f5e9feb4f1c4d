// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension RuleFamily {
    /// Linears that share an input become one, and what follows them moves into fused ops.
    public static let linears = RuleFamily(
        "linears",
        [
            RewriteRule(
                "merge-linears",
                "[x*transpose(a), x*transpose(b)] = split(x * transpose(concat(a, b)))",
                pattern: .op("linear", .any("x"), .op("parameter", as: "weight"), as: "linear"),
                replacement: mergeLinears),
            RewriteRule(
                "gated-activation", "act(gate) * up in one pass (SwiGLU, Shazeer 2020)",
                pattern: .op(
                    "mul", .op("activation", .any("gate"), as: "activation"), .any("up"), as: "mul"),
                where: { match, graph in
                    graph.useCount(of: match.node("activation").value()) == 1
                }
            ) { match, graph in
                let node = match.node("activation")
                return try graph.insert(
                    "gatedActivation", [match.value("gate"), match.value("up")], node.attributes,
                    path: match.root.path, before: match.root.id)
            },
        ])

    /// Linears of one parent module with the same input and alike weights become one linear and a split.
    @Sendable
    private static func mergeLinears(_ match: Match, _ graph: inout Graph) throws -> [ValueID]? {
        let root = match.node("linear")
        let weightType = match.node("weight").results[0]
        let hasBias = root.operands.count > 2 && root.operands[2] != nil
        let siblings = graph.users(of: root.operands[0] ?? root.value()).filter { node in
            guard node.op == "linear", node.operands[0] == root.operands[0],
                node.attributes == root.attributes, parent(node.path) == parent(root.path),
                let weight = node.operands[1], let producer = graph.producer(of: weight),
                producer.op == "parameter", graph.useCount(of: weight) == 1
            else { return false }
            let type = producer.results[0]
            return type.format == weightType.format && type.columns == weightType.columns
                && (node.operands.count > 2 && node.operands[2] != nil) == hasBias
        }
        guard siblings.count > 1, siblings[0].id == root.id else { return nil }
        let names = siblings.map { String($0.path.split(separator: ".").last ?? "") }
        let isShort = names.allSatisfy { $0.count == 1 }
        let prefix = parent(root.path).isEmpty ? "" : parent(root.path) + "."
        let path = prefix + names.joined(separator: isShort ? "" : "_")
        func concat(_ index: Int, _ suffix: String) throws -> ValueID {
            try graph.insert(
                "concat", siblings.map { $0.operands[index] }, ["axis": 0],
                path: path + suffix, before: root.id)[0]
        }
        let weight = try concat(1, ".weight")
        let bias = hasBias ? try concat(2, ".bias") : nil
        let merged = try graph.insert(
            "linear", [root.operands[0], weight, bias], root.attributes, path: path,
            before: root.id)[0]
        let sizes = siblings.map { $0.results[0].columns ?? 0 }
        let parts = try graph.insert(
            "split", [merged], ["sizes": .ints(sizes)], path: path, before: root.id)
        for (node, part) in zip(siblings, parts) { graph.replaceUses(of: node.value(), with: part) }
        return [parts[0]]
    }

    private static func parent(_ path: String) -> String {
        path.split(separator: ".").dropLast().joined(separator: ".")
    }
}
