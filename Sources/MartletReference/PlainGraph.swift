// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

/// A graph without fused ops, and where the values of the original went.
struct PlainGraph: Sendable {
    private(set) var graph: Graph
    private var replacements: [ValueID: ValueID] = [:]
    /// Nodes in order, each with the values that nothing reads after it.
    private(set) var schedule: [(node: Node, dying: [ValueID])] = []

    /// Replaces every op that has a decomposition by it.
    ///
    /// - Throws: `MartletError` `.internalError` if a decomposition's types differ from the op's.
    init(_ original: Graph) throws {
        graph = original
        var pending = graph.order
        while let id = pending.popLast() {
            guard let node = graph.node(id),
                let decompose = try graph.ops.definition(of: node.op).decompose
            else { continue }
            let known = Set(graph.order)
            let results = try decompose(node, &graph)
            if results.isEmpty { continue }
            guard results.map({ graph.type(of: $0) }) == node.results.map(Optional.some) else {
                throw MartletError(
                    .internalError, "the decomposition of \(node.op) has other types than the op",
                    context: ["path": node.path])
            }
            for (index, value) in results.enumerated() {
                graph.replaceUses(of: node.value(index), with: value)
                replacements[node.value(index)] = value
            }
            graph.remove([id])
            pending += graph.order.filter { !known.contains($0) }
        }
        try graph.sort()
        var last: [ValueID: NodeID] = [:]
        for node in graph.nodes {
            for index in node.results.indices { last[node.value(index)] = node.id }
            for case let operand? in node.operands { last[operand] = node.id }
        }
        let dying = Dictionary(grouping: last.keys) { last[$0] ?? $0.node }
        schedule = graph.nodes.map { ($0, dying[$0.id] ?? []) }
    }

    /// Where a value of the original graph is found.
    func value(_ original: ValueID) -> ValueID {
        var value = original
        while let next = replacements[value] { value = next }
        return value
    }
}
