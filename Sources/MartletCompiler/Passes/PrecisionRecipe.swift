// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore
import MartletGraph
import MartletModels

/// Precisions of one engine: weights, activations and the KV cache.
public struct PrecisionRecipe: Sendable {
    /// What becomes of a weight matrix.
    public enum Weights: Sendable {
        /// As the checkpoint stores it.
        case keep
        /// Decoded to plain numbers of the activation type.
        case plain
        /// Coded by the scheme that a rule gives for rows of so many inputs.
        case scheme(name: String, @Sendable (Int) throws -> QuantizationScheme)
    }

    /// Type of activations; plain weights of other types are converted if it is f16 or bf16.
    public var dtype: DType
    /// Linear weights.
    public var weights: Weights
    /// The embedding table.
    public var embedding: Weights
    /// The head; nil for the embedding's where they are one, else as the checkpoint stores it.
    public var head: Weights?
    /// Format of the inputs of linears with coded weights; nil for exact.
    public var activations: ActivationFormat?
    /// Type of cached keys and values.
    public var kvType: DType

    /// Sets the precisions.
    public init(
        dtype: DType = .f32, weights: Weights = .keep, embedding: Weights = .keep,
        head: Weights? = nil, activations: ActivationFormat? = nil, kvType: DType = .f32
    ) {
        self.dtype = dtype
        self.weights = weights
        self.embedding = embedding
        self.head = head
        self.activations = activations
        self.kvType = kvType
    }
}

/// A recipe together with the weights it is applied to.
struct AppliedRecipe {
    let recipe: PrecisionRecipe
    let weights: any WeightProvider
}

extension PrecisionRecipe {
    /// Gives every parameter the format it will have in the engine.
    ///
    /// - Returns: How many parameters changed their format.
    func applyToParameters(of graph: inout Graph, weights provider: any WeightProvider) throws
        -> Int
    {
        var count = try untieHead(of: &graph, weights: provider)
        for node in graph.nodes where node.op == "parameter" {
            guard let shape = node.results[0].fixedShape else { continue }
            let stored = try storage(of: WeightExpression(parameter: node), provider)
            let format = try self.format(of: node, shape, stored: stored, in: graph)
            if format != node.results[0].format {
                graph.update(node.id) { $0.results[0].format = format }
                count += 1
            }
        }
        return count
    }

    /// Gives the head a parameter of its own where it is the embedding table and its format differs.
    ///
    /// - Returns: How many parameters were added.
    private func untieHead(
        of graph: inout Graph, weights provider: any WeightProvider
    ) throws -> Int {
        guard let head else { return 0 }
        var count = 0
        for node in graph.nodes where node.op == "parameter" {
            let users = graph.users(of: node.value())
            let heads = users.filter { Self.isHead($0, of: node) }
            guard users.contains(where: { $0.op == "embedding" }), let first = heads.first,
                let shape = node.results[0].fixedShape
            else { continue }
            let expression = try WeightExpression(parameter: node)
            let stored = try storage(of: expression, provider)
            guard
                try format(embedding, shape, stored: stored)
                    != format(head, shape, stored: stored)
            else { continue }
            let name = graph.unusedName(first.path)
            let copy = graph.insert(
                "parameter", [],
                ["name": .string(name), "source": .string(expression.description)],
                results: node.results, path: name, before: first.id)[0]
            for user in heads { graph.update(user.id) { $0.operands[1] = copy } }
            count += 1
        }
        return count
    }

    private static func isHead(_ node: Node, of parameter: Node) -> Bool {
        node.op == "linear" && node.path == "head" && node.operands[1] == parameter.value()
    }

    private func storage(
        of expression: WeightExpression, _ provider: any WeightProvider
    ) throws -> ElementFormat {
        switch expression {
        case .named(let name, let shape): return try provider.storage(of: name, shape: shape)
        case .apply("concat", let parts):
            let formats = try parts.map { try storage(of: $0, provider) }
            return Set(formats).count == 1 ? formats[0] : .plain(.f32)
        case .apply(_, let parts):
            // Computed in f32, kept in the type of its numbers: a normalized bf16 head stays bf16.
            let stored = try parts.first.map { try storage(of: $0, provider) }
            return .plain(stored?.dtype ?? .f32)
        }
    }

    private func format(
        of node: Node, _ shape: [Int], stored: ElementFormat, in graph: Graph
    ) throws -> ElementFormat {
        let users = graph.users(of: node.value())
        let isTable = users.contains { $0.op == "embedding" }
        let linears = users.filter { $0.op == "linear" && $0.operands[1] == node.value() }
        guard shape.count == 2, isTable || !linears.isEmpty else { return .plain(.f32) }
        let isHead = linears.contains { $0.path == "head" }
        return try self.format(
            isTable ? embedding : isHead ? head ?? .keep : weights, shape, stored: stored)
    }

    private func format(
        _ choice: Weights, _ shape: [Int], stored: ElementFormat
    ) throws -> ElementFormat {
        switch choice {
        case .scheme(_, let rule): return .weight(try rule(shape[1]))
        case .plain: return .plain(dtype)
        case .keep:
            guard let type = stored.dtype else { return stored }
            if dtype != .f32 { return .plain(dtype) }
            return .plain([.f32, .f16, .bf16].contains(type) ? type : .f32)
        }
    }

    /// Quantizes the inputs of linears whose weights are coded.
    ///
    /// - Returns: How many linears got a `quantize` node.
    func quantizeActivations(of graph: inout Graph) throws -> Int {
        guard let activations else { return 0 }
        var count = 0
        for node in graph.nodes where node.op == "linear" {
            guard let weight = node.operands[1], let input = node.operands[0],
                graph.type(of: weight)?.format.scheme != nil,
                graph.type(of: input)?.format.dtype != nil
            else { continue }
            let codes = try graph.insert(
                "quantize", [input], ["format": .string(activations.rawValue)], path: node.path,
                before: node.id)[0]
            let type = node.results[0].format.dtype ?? .f32
            graph.update(node.id) {
                $0.operands[0] = codes
                $0.attributes["dtype"] = .string(type.rawValue)
            }
            count += 1
        }
        return count
    }
}
