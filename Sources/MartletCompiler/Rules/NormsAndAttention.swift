// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension RuleFamily {
    /// Normalization takes up the residual addition before it.
    public static let norms = RuleFamily(
        "norms",
        [
            RewriteRule(
                "add-norm", "(x + y, norm(x + y)) in one pass over the row",
                pattern: .op(
                    "norm", .op("add", .any("x"), .any("y"), as: "sum"), as: "norm"),
                where: { match, graph in match.node("norm").attributes["format"] == nil }
            ) { match, graph in
                let norm = match.node("norm")
                let results = try graph.insert(
                    "addNorm", [match.value("x"), match.value("y")] + norm.operands.dropFirst(),
                    norm.attributes, path: norm.path, before: norm.id)
                graph.replaceUses(of: match.node("sum").value(), with: results[0])
                return [results[1]]
            }
        ])

    /// Rotary positions and the cache write become part of attention.
    public static let attention = RuleFamily(
        "attention",
        [
            RewriteRule(
                "rotary-cache-attention",
                "attention(rotary(q), kvWrite(rotary(k), v)): rotated and stored where it is read",
                pattern: .op(
                    "attention",
                    .op("rotary", .any("q"), .any("positions"), .any("frequencies"), as: "rotaryQ"),
                    .op(
                        "kvWrite",
                        .op(
                            "rotary", .any("k"), .any("positions"), .any("frequencies"),
                            as: "rotaryK"),
                        .any("v"), as: "write"),
                    .any("positions"), as: "attention"),
                where: { match, graph in
                    match.node("rotaryQ").attributes == match.node("rotaryK").attributes
                        && graph.useCount(of: match.node("write").value()) == 1
                }
            ) { match, graph in
                let rotary = match.node("rotaryQ").attributes.filter { $0.key != "headDim" }
                return try cached(match, &graph, rotary, frequencies: match.value("frequencies"))
            },
            RewriteRule(
                "cache-attention", "attention(q, kvWrite(k, v)) without rotary positions",
                pattern: .op(
                    "attention", .any("q"),
                    .op("kvWrite", .any("k"), .any("v"), as: "write"), .any("positions"),
                    as: "attention"),
                where: { match, graph in
                    graph.useCount(of: match.node("write").value()) == 1
                        && !["q", "k"].contains { name in
                            match.value(name).flatMap(graph.producer(of:))?.op == "rotary"
                        }
                }
            ) { match, graph in
                try cached(
                    match, &graph, ["style": "none", "magnitude": 1.0], frequencies: nil)
            },
        ])

    @Sendable
    private static func cached(
        _ match: Match, _ graph: inout Graph, _ rotary: [String: AttributeValue],
        frequencies: ValueID?
    ) throws -> [ValueID] {
        let node = match.node("attention")
        let slopes = node.operands.count > 3 ? node.operands[3] : nil
        return try graph.insert(
            "cachedAttention",
            [
                match.value("q"), match.value("k"), match.value("v"), match.value("positions"),
                frequencies, slopes,
            ], node.attributes.merging(rotary) { own, _ in own }, path: node.path, before: node.id)
    }
}
