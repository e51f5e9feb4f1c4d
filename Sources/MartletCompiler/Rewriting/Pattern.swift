// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// The shape that a rule looks for, written from the root down.
///
/// Operands that a pattern does not mention may be anything.
public indirect enum Pattern: Sendable {
    /// Any value; bound under the name. The same name twice demands the same value.
    case any(String)
    /// Result 0 of a node of this op whose leading operands match; the node is bound under the name.
    case node(op: String, operands: [Pattern], name: String)
    /// Result of a given index of a node.
    case result(Int, Pattern)

    /// A node pattern, written like the call that records it.
    public static func op(_ op: String, _ operands: Pattern..., as name: String) -> Pattern {
        .node(op: op, operands: operands, name: name)
    }

    /// The op at the root.
    var rootOp: String? {
        switch self {
        case .any: nil
        case .node(let op, _, _): op
        case .result(_, let inner): inner.rootOp
        }
    }
}

/// What a pattern found.
public struct Match: Sendable {
    /// The node at the root.
    public let root: Node
    /// Nodes by their names in the pattern.
    public fileprivate(set) var nodes: [String: Node] = [:]
    /// Values by their names in the pattern.
    public fileprivate(set) var values: [String: ValueID] = [:]

    /// A bound node; the root if the pattern has no such name.
    public func node(_ name: String) -> Node { nodes[name] ?? root }
    /// A bound value; nil if the pattern has no such name.
    public func value(_ name: String) -> ValueID? { values[name] }
}

extension Pattern {
    /// Tries to match with a node at the root.
    func match(_ root: Node, in graph: Graph) -> Match? {
        var match = Match(root: root)
        guard bind(root, graph, &match) else { return nil }
        return match
    }

    private func bind(_ node: Node, _ graph: Graph, _ match: inout Match) -> Bool {
        guard case .node(let op, let operands, let name) = self, node.op == op,
            operands.count <= node.operands.count
        else { return false }
        match.nodes[name] = node
        for (pattern, operand) in zip(operands, node.operands) {
            guard let operand, pattern.bind(operand, 0, graph, &match) else { return false }
        }
        return true
    }

    private func bind(
        _ value: ValueID, _ result: Int, _ graph: Graph, _ match: inout Match
    ) -> Bool {
        switch self {
        case .any(let name):
            if let bound = match.values[name] { return bound == value }
            match.values[name] = value
            return true
        case .result(let index, let inner): return inner.bind(value, index, graph, &match)
        case .node:
            guard value.result == result, let node = graph.producer(of: value) else { return false }
            return bind(node, graph, &match)
        }
    }
}
