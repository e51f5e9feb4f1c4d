// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension RuleFamily {
    /// Casts, reshapes and slices that change nothing, or that follow each other.
    public static let cleanup = RuleFamily(
        "cleanup",
        [
            identity("cast"), identity("reshape"), identity("slice"), identity("split"),
            RewriteRule(
                "merge-reshapes", "reshape(reshape(x)) = reshape(x)",
                pattern: .op("reshape", .op("reshape", .any("x"), as: "inner"), as: "outer")
            ) { match, graph in
                try graph.insert(
                    "reshape", [match.value("x")], match.root.attributes, path: match.root.path,
                    before: match.root.id)
            },
            RewriteRule(
                "merge-casts", "cast(cast(x)) = cast(x) where the inner cast widens",
                pattern: .op("cast", .op("cast", .any("x"), as: "inner"), as: "outer"),
                where: { match, graph in
                    guard let from = match.value("x").flatMap(graph.type(of:))?.format.dtype,
                        let to = match.node("inner").results[0].format.dtype
                    else { return false }
                    return to == .f32 && (from == .f16 || from == .bf16)
                }
            ) { match, graph in
                try graph.insert(
                    "cast", [match.value("x")], match.root.attributes, path: match.root.path,
                    before: match.root.id)
            },
        ])

    private static func identity(_ op: String) -> RewriteRule {
        RewriteRule(
            "remove-identity", "\(op)(x) = x where the type stays",
            pattern: .op(op, .any("x"), as: "node"),
            where: { match, graph in
                match.root.results.count == 1
                    && match.value("x").flatMap(graph.type(of:)) == match.root.results[0]
            }
        ) { match, _ in match.value("x").map { [$0] } }
    }

    /// What is computed from weights alone is computed when the engine is built.
    public static let folding = RuleFamily(
        "folding",
        ["concat", "normalizeRows", "transpose", "cast"].map { op in
            RewriteRule(
                "fold-constants", "\(op) of weights is a weight",
                pattern: .op(op, .op("parameter", as: "first"), as: "node"),
                where: { match, graph in
                    match.root.operands.allSatisfy { operand in
                        operand.flatMap(graph.producer(of:))?.op == "parameter"
                    } && (op != "concat" || match.root.attributes["axis"] == 0)
                }
            ) { match, graph in
                let parts = match.root.operands.compactMap { $0.flatMap(graph.producer(of:)) }
                let expression = WeightExpression.apply(
                    op, try parts.map { try WeightExpression(parameter: $0) })
                let name = graph.unusedName(match.root.path)
                return graph.insert(
                    "parameter", [],
                    ["name": .string(name), "source": .string(expression.description)],
                    results: match.root.results, path: name, before: match.root.id)
            }
        })
}

extension Graph {
    /// A name for a new source at a path: the path, numbered where it is taken.
    func unusedName(_ path: String) -> String {
        let taken = Set(nodes.compactMap { $0.attributes["name"]?.string })
        if !taken.contains(path) { return path }
        var number = 2
        while taken.contains("\(path).\(number)") { number += 1 }
        return "\(path).\(number)"
    }
}
