// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletGraph

/// A rewrite as data: name, pattern, guard, replacement, and one line of algebra or source.
///
/// The replacement inserts nodes before the match's root and returns what stands for the root's
/// results; it may redirect readers of other matched values itself. Returning nil declines. Matched
/// nodes that nothing reads afterwards go, those that write a cache included.
public struct RewriteRule: Sendable {
    /// Name, as `--disable-rule` takes it.
    public let name: String
    /// The algebra, or where it comes from, in one line.
    public let summary: String
    /// Op that it makes where a device has kernels for it; nil for a rule of every device.
    public let deviceOp: String?
    /// What to look for.
    public let pattern: Pattern
    /// Further conditions.
    public let condition: @Sendable (Match, Graph) -> Bool
    /// Builds what replaces the root.
    public let replacement: @Sendable (Match, inout Graph) throws -> [ValueID]?

    /// Defines a rule; see the properties.
    public init(
        _ name: String, _ summary: String, deviceOp: String? = nil, pattern: Pattern,
        where condition: @escaping @Sendable (Match, Graph) -> Bool = { _, _ in true },
        replacement: @escaping @Sendable (Match, inout Graph) throws -> [ValueID]?
    ) {
        self.name = name
        self.summary = summary
        self.deviceOp = deviceOp
        self.pattern = pattern
        self.condition = condition
        self.replacement = replacement
    }

    /// Applies the rule wherever it matches, until it matches no more.
    ///
    /// - Returns: How often it was applied.
    /// - Throws: What a replacement throws, or `MartletError` `.unsupported` if the rule applies to
    ///   its own results without end; the graph is then unchanged.
    @discardableResult
    public func apply(to graph: inout Graph) throws -> Int {
        var working = graph
        let limit = 16 * (graph.order.count + 16)
        var count = 0
        var changed = true
        while changed {
            changed = false
            for id in working.order {
                guard let root = working.node(id), root.op == pattern.rootOp,
                    let match = pattern.match(root, in: working), condition(match, working)
                else { continue }
                // What a declined replacement inserted is forgotten.
                var attempt = working
                guard let results = try replacement(match, &attempt) else { continue }
                working = attempt
                for (old, new) in zip(root.results.indices.map(root.value), results) {
                    working.replaceUses(of: old, with: new)
                }
                try working.sort()
                DeadCode.remove(from: &working, replaced: Set(match.nodes.values.map(\.id)))
                count += 1
                changed = true
                guard count <= limit else {
                    throw MartletError(
                        .unsupported, "rule '\(name)' applied \(count) times without end",
                        mend: "Give the rule a condition that its own result does not meet")
                }
            }
        }
        graph = working
        return count
    }
}
