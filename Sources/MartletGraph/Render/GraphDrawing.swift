// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// What all pictures of a graph show: boxes, the values between them, and folded layers.
struct GraphDrawing {
    /// A node or a named result.
    struct Box {
        enum Kind { case input, weight, operation, output }
        let kind: Kind
        /// Op name or the result's name.
        let title: String
        /// Module path and types; lines that are not empty.
        let lines: [String]
        /// Attributes, for tooltips.
        let note: String
        /// Index of the fold it belongs to.
        let fold: Int?
    }

    /// Layers of equal structure of which the first is shown.
    struct Fold {
        /// Such as `layers.0`.
        let first: String
        /// Such as `layers.29`.
        let last: String
        let count: Int
    }

    private(set) var boxes: [Box] = []
    /// Indices of boxes, each pair once; the first is always the smaller.
    private(set) var edges: [(from: Int, to: Int)] = []
    private(set) var folds: [Fold] = []

    init(_ graph: Graph, foldingLayers: Bool) {
        let nodes = graph.nodes
        let runs = foldingLayers ? LayerRun.find(in: nodes) : []
        var boxOfNode: [NodeID: Int] = [:]
        var layerOfNode: [NodeID: (run: Int, layer: Int)] = [:]
        for (index, run) in runs.enumerated() {
            folds.append(
                Fold(
                    first: "\(run.prefix)\(run.first)",
                    last: "\(run.prefix)\(run.first + run.layers.count - 1)",
                    count: run.layers.count))
            for (layer, ids) in run.layers.enumerated() {
                for id in ids { layerOfNode[id] = (index, layer) }
            }
        }
        for node in nodes where (layerOfNode[node.id]?.layer ?? 0) == 0 {
            boxOfNode[node.id] = boxes.count
            boxes.append(Self.box(node, fold: layerOfNode[node.id]?.run))
        }
        for run in runs {
            for ids in run.layers.dropFirst() {
                for (id, shown) in zip(ids, run.layers[0]) { boxOfNode[id] = boxOfNode[shown] }
            }
        }
        var known: Set<[Int]> = []
        func connect(_ from: Int, _ to: Int) {
            if from < to, known.insert([from, to]).inserted { edges.append((from, to)) }
        }
        for node in nodes {
            for case let operand? in node.operands {
                guard let from = boxOfNode[operand.node], let to = boxOfNode[node.id] else {
                    continue
                }
                // A value that goes from one folded layer to the next has no place in the picture.
                if let a = layerOfNode[operand.node], let b = layerOfNode[node.id], a.run == b.run,
                    a.layer != b.layer
                {
                    continue
                }
                connect(from, to)
            }
        }
        for output in graph.outputs {
            let type = graph.type(of: output.value).map { [$0.description] } ?? []
            boxes.append(
                Box(kind: .output, title: output.name, lines: type, note: "", fold: nil))
            if let from = boxOfNode[output.value.node] { connect(from, boxes.count - 1) }
        }
    }

    private static func box(_ node: Node, fold: Int?) -> Box {
        let kind: Box.Kind =
            switch node.op {
            case "input": .input
            case "parameter", "constant": .weight
            default: .operation
            }
        let types = node.results.map(\.description).joined(separator: "; ")
        return Box(
            kind: kind, title: node.op, lines: [node.path, types].filter { !$0.isEmpty },
            note: Graph.text(of: node.attributes), fold: fold)
    }
}

/// Consecutive layers of one structure: equal ops, paths, types and attributes but for the number.
struct LayerRun {
    /// Path before the number, such as `layers.`.
    let prefix: String
    /// Number of the first layer.
    let first: Int
    /// Nodes of each layer, in order.
    private(set) var layers: [[NodeID]]

    /// All runs of two layers or more.
    static func find(in nodes: [Node]) -> [LayerRun] {
        struct Layer {
            var ids: [NodeID] = []
            var signature: [String] = []
        }
        var prefixes: [String] = []
        var layers: [String: [Int: Layer]] = [:]
        for node in nodes {
            guard let (prefix, number, rest) = parts(of: node.path) else { continue }
            if layers[prefix] == nil { prefixes.append(prefix) }
            let attributes = node.attributes.filter { !["layer", "name"].contains($0.key) }
            let types = node.results.map(\.description).joined(separator: ";")
            layers[prefix, default: [:]][number, default: Layer()].ids.append(node.id)
            layers[prefix, default: [:]][number, default: Layer()].signature.append(
                "\(node.op)|\(rest)|\(types)|\(Graph.text(of: attributes))")
        }
        var runs: [LayerRun] = []
        for prefix in prefixes {
            var previous: (number: Int, signature: [String])?
            for (number, layer) in (layers[prefix] ?? [:]).sorted(by: { $0.key < $1.key }) {
                if let last = previous, last.number == number - 1,
                    last.signature == layer.signature
                {
                    runs[runs.count - 1].layers.append(layer.ids)
                } else {
                    runs.append(LayerRun(prefix: prefix, first: number, layers: [layer.ids]))
                }
                previous = (number, layer.signature)
            }
        }
        return runs.filter { $0.layers.count > 1 }
    }

    /// Splits `layers.3.attention.q` into `layers.`, 3 and `.attention.q`.
    private static func parts(of path: String) -> (String, Int, String)? {
        let words = path.split(separator: ".", omittingEmptySubsequences: false)
        guard
            let index = words.firstIndex(where: {
                !$0.isEmpty && $0.count < 10 && $0.utf8.allSatisfy { 48...57 ~= $0 }
            }),
            let number = Int(words[index])
        else { return nil }
        let prefix = words[..<index].map { $0 + "." }.joined()
        return (prefix, number, words[(index + 1)...].map { "." + $0 }.joined())
    }
}
