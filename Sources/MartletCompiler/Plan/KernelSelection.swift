// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
import MartletGraph

/// What the compiler decided about one node, and why.
package struct KernelChoice: Sendable {
    /// A family that was looked at.
    package struct Candidate: Sendable {
        /// Family name.
        package let family: String
        /// Reason of refusal; nil if it could do it.
        package let refusal: String?
        /// Seconds of the weighted row counts; nil if refused.
        package let seconds: Double?
    }

    /// Op of the node.
    package let op: String
    /// Module path.
    package let path: String
    /// The family chosen.
    package let family: String
    /// Layout per operand that is a parameter; nil for row-major or not a parameter.
    package let layouts: [String?]
    /// Cost of the chosen family.
    package let cost: KernelCost
    /// All families of the op, chosen one included.
    package let candidates: [Candidate]
}

/// Chooses kernel families by descriptor and cost; never by a switch over ops or devices.
package struct KernelSelection: Sendable {
    let catalog: any KernelCatalog

    /// Row counts that the choice is made for, with weights: mostly decoding, some prefill.
    static let rowCounts: [(rows: Int, weight: Double)] = [
        (1, 0.6), (8, 0.2), (64, 0.1), (512, 0.1),
    ]

    /// Asks every family of the node's op.
    ///
    /// - Returns: The choice, or the refused candidates if no family accepts the node.
    func choose(for node: Node, in graph: Graph) -> Result<KernelChoice, Refusal> {
        let query = KernelQuery(
            op: node.op, attributes: node.attributes,
            operands: node.operands.map { $0.flatMap(graph.type(of:)) },
            isParameter: node.operands.map { operand in
                operand.flatMap(graph.producer(of:)).map {
                    ["parameter", "constant"].contains($0.op)
                }
                    ?? false
            }, results: node.results)
        var candidates: [KernelChoice.Candidate] = []
        var best: (family: KernelFamily, cost: KernelCost, layouts: [String?], seconds: Double)?
        for family in catalog.families where family.op == node.op {
            switch family.evaluate(query) {
            case .refused(let reason):
                candidates.append(.init(family: family.name, refusal: reason, seconds: nil))
            case .accepted(let cost, let layouts):
                let seconds = Self.rowCounts.reduce(0.0) { total, point in
                    let values = Dimension.Values(
                        tokens: point.rows, requests: min(point.rows, 8),
                        logitRows: min(point.rows, 8), context: 2048)
                    return total + point.weight
                        * cost.seconds(values, bytesPerSecond: catalog.assumedBytesPerSecond)
                }
                candidates.append(.init(family: family.name, refusal: nil, seconds: seconds))
                if seconds < best?.seconds ?? .infinity { best = (family, cost, layouts, seconds) }
            }
        }
        guard let best else { return .failure(Refusal(candidates: candidates)) }
        return .success(
            KernelChoice(
                op: node.op, path: node.path, family: best.family.name, layouts: best.layouts,
                cost: best.cost, candidates: candidates))
    }

    /// No family accepts a node.
    struct Refusal: Error {
        let candidates: [KernelChoice.Candidate]
    }

    /// The family of a choice.
    func family(named name: String) -> KernelFamily? { catalog.families.first { $0.name == name } }

    /// Replaces fused nodes that no family accepts by their decompositions.
    ///
    /// - Throws: `MartletError` `.unsupported` naming the node and each family's reason.
    func legalize(_ graph: inout Graph) throws {
        var pending = graph.order
        while let id = pending.popLast() {
            guard let node = graph.node(id), !Self.isFree(node.op),
                case .failure(let refusal) = choose(for: node, in: graph)
            else { continue }
            let before = Set(graph.order)
            guard let decompose = try graph.ops.definition(of: node.op).decompose,
                case let results = try decompose(node, &graph), !results.isEmpty
            else {
                let reasons = refusal.candidates.map { "\($0.family): \($0.refusal ?? "")" }
                throw MartletError(
                    .unsupported,
                    "no kernel of \(catalog.target) computes \(node.op) of '\(node.path)' "
                        + "(\(reasons.isEmpty ? "no family for this op" : reasons.joined(separator: "; ")))"
                )
            }
            for (old, new) in zip(node.results.indices.map(node.value), results) {
                graph.replaceUses(of: old, with: new)
            }
            try graph.sort()
            DeadCode.remove(from: &graph, replaced: [id])
            pending += graph.order.filter { !before.contains($0) }
        }
    }

    /// Copies split columns for families that want whole rows.
    ///
    /// - Throws: What the graph throws; never for a legal one.
    func copyStridedOperands(_ graph: inout Graph) throws {
        for node in graph.nodes where !Self.isFree(node.op) {
            guard case .success(let choice) = choose(for: node, in: graph),
                family(named: choice.family)?.acceptsStridedOperands == false
            else { continue }
            for (index, operand) in node.operands.enumerated() {
                guard let operand, let split = graph.producer(of: operand), split.op == "split",
                    let sizes = split.attributes["sizes"]?.ints
                else { continue }
                let copy = try graph.insert(
                    "slice", [split.operands[0]],
                    [
                        "start": .int(sizes.prefix(operand.result).reduce(0, +)),
                        "count": .int(sizes[operand.result]),
                    ], path: node.path, before: node.id)[0]
                graph.update(node.id) { $0.operands[index] = copy }
            }
        }
    }

    /// Ops that take no kernel: sources, caches, and views of columns.
    static func isFree(_ op: String) -> Bool {
        ["input", "parameter", "constant", "cache", "split"].contains(op)
    }
}
