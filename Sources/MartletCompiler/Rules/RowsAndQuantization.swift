// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension RuleFamily {
    private static let rowWise = [
        "linear", "norm", "add", "mul", "activation", "softCap", "scale", "cast",
    ]

    /// Rows that need no logits are dropped as early as possible.
    public static let rows = RuleFamily(
        "rows",
        rowWise.map { op in
            RewriteRule(
                "gather-rows-early",
                "rows of f(x) = f(rows of x) for \(op), which works row by row",
                pattern: .op(
                    "gatherRows", .op(op, .any("x"), as: "inner"), .any("rows"), as: "gather"),
                where: { match, graph in graph.useCount(of: match.node("inner").value()) == 1 }
            ) { match, graph in
                let inner = match.node("inner"), rows = match.value("rows")
                // Only operands with the rows of the result are gathered; weights stay.
                let shape = inner.results[0].shape
                let operands = try inner.operands.map { operand -> ValueID? in
                    guard let operand, graph.type(of: operand)?.shape.first == shape[0],
                        graph.type(of: operand)?.rank == 2
                    else { return operand }
                    return try graph.insert(
                        "gatherRows", [operand, rows], path: match.root.path,
                        before: match.root.id)[0]
                }
                return try graph.insert(
                    inner.op, operands, inner.attributes, path: inner.path, before: match.root.id)
            }
        })

    /// Activation codes are made by the op that makes the values.
    public static let quantization = RuleFamily(
        "quantization",
        ["norm", "activation", "gatedActivation", "cachedAttention"].map { op in
            fuseQuantize(.op(op, as: "producer"), result: 0, op)
        } + [
            fuseQuantize(.result(1, .op("addNorm", as: "producer")), result: 1, "addNorm")
        ])

    private static func fuseQuantize(
        _ producer: Pattern, result: Int, _ op: String
    ) -> RewriteRule {
        RewriteRule(
            "quantize-in-producer", "\(op), then quantize, in one pass over the row",
            pattern: .op("quantize", producer, as: "quantize"),
            where: { match, graph in
                let node = match.node("producer")
                return node.attributes["format"] == nil
                    && graph.useCount(of: node.value(result)) == 1
            }
        ) { match, graph in
            let node = match.node("producer")
            let results = try graph.insert(
                op, node.operands,
                node.attributes.merging(match.root.attributes) { own, _ in own }, path: node.path,
                before: match.root.id)
            for index in results.indices where index != result {
                graph.replaceUses(of: node.value(index), with: results[index])
            }
            return [results[result]]
        }
    }
}
