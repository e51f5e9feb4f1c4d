// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletGraph

/// Drops nodes whose results nothing reads.
package enum DeadCode {
    /// Removes pure nodes, backwards, that neither a node nor an output reads.
    ///
    /// - Parameters:
    ///   - graph: Changed in place.
    ///   - replaced: Nodes that others stand for now: they go even if they have an effect.
    /// - Returns: How many nodes went.
    @discardableResult
    package static func remove(from graph: inout Graph, replaced: Set<NodeID> = []) -> Int {
        var live: Set<NodeID> = Set(graph.outputs.map(\.value.node))
        var dead: Set<NodeID> = []
        for node in graph.nodes.reversed() {
            let isPure =
                replaced.contains(node.id)
                || (try? graph.ops.definition(of: node.op))?.isPure ?? true
            if live.contains(node.id) || !isPure {
                live.insert(node.id)
                for operand in node.operands { if let operand { live.insert(operand.node) } }
            } else {
                dead.insert(node.id)
            }
        }
        graph.remove(dead)
        let names = Set(
            graph.nodes.filter { $0.op == "constant" }.compactMap { $0.attributes["name"]?.string })
        graph.constants = graph.constants.filter { names.contains($0.key) }
        return dead.count
    }
}

/// Computes equal things once.
package enum CommonSubexpressions {
    private struct Key: Hashable {
        let op: String
        let operands: [ValueID?]
        let attributes: [String]
    }

    /// Redirects readers of a pure node to an earlier equal one.
    ///
    /// - Returns: How many nodes became superfluous.
    @discardableResult
    package static func merge(in graph: inout Graph) -> Int {
        var seen: [Key: Node] = [:]
        var count = 0
        for id in graph.order {
            guard let node = graph.node(id),
                (try? graph.ops.definition(of: node.op))?.isPure == true
            else { continue }
            let key = Key(
                op: node.op, operands: node.operands,
                attributes: node.attributes.sorted { $0.key < $1.key }.map {
                    "\($0.key)=\($0.value)"
                })
            guard let first = seen[key] else {
                seen[key] = node
                continue
            }
            for index in node.results.indices {
                graph.replaceUses(of: node.value(index), with: first.value(index))
            }
            count += 1
        }
        if count > 0 { DeadCode.remove(from: &graph) }
        return count
    }
}
