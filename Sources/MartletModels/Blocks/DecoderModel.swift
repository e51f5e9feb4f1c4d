// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletGraph

/// A layer of a decoder: `[T, H]` gives `[T, H]`.
public protocol DecoderBlock: Module {
    /// Applies it.
    func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor
}

/// The outer part of a decoder: token embedding, layers, final norm, head, sampling.
///
/// Outputs `logits` (`[O, V]` f32, only for the rows that need them) and `tokens` (`[O]`).
public struct DecoderModel: Sendable {
    let vocabularySize: Int
    let hiddenSize: Int
    let layers: [any DecoderBlock]
    let norm: RMSNorm
    let tiesEmbedding: Bool
    let normalizesHead: Bool
    let logitSoftCap: Double?

    /// Combines the parts.
    ///
    /// - Parameters:
    ///   - vocabularySize: V.
    ///   - hiddenSize: H.
    ///   - layers: Layers in order, such as `DecoderLayer`.
    ///   - norm: Final norm.
    ///   - tiesEmbedding: Whether the head is the embedding table.
    ///   - normalizesHead: Whether the head's rows are divided by their lengths.
    ///   - logitSoftCap: Limits logits to `cap * tanh(x / cap)`.
    public init(
        vocabularySize: Int, hiddenSize: Int, layers: [any DecoderBlock], norm: RMSNorm,
        tiesEmbedding: Bool, normalizesHead: Bool = false, logitSoftCap: Double? = nil
    ) {
        self.vocabularySize = vocabularySize
        self.hiddenSize = hiddenSize
        self.layers = layers
        self.norm = norm
        self.tiesEmbedding = tiesEmbedding
        self.normalizesHead = normalizesHead
        self.logitSoftCap = logitSoftCap
    }

    /// The normed hidden states `[T, H]` of the step's tokens.
    public func hidden(_ builder: GraphBuilder, _ step: StepInputs) -> Tensor {
        let table = builder.parameter("embedding.weight", [vocabularySize, hiddenSize])
        var x = builder.scope("embedding") { builder.input("tokens").embedding(table) }
        for layer in layers { x = layer(x, step) }
        return norm(x)
    }

    /// Records the whole decoder.
    public func decode(_ builder: GraphBuilder, _ step: StepInputs) {
        let hidden = hidden(builder, step)
        var weight = builder.parameter(
            tiesEmbedding ? "embedding.weight" : "head.weight", [vocabularySize, hiddenSize])
        if normalizesHead {
            weight = builder.scope("head") { builder.record("normalizeRows", [weight]) }
        }
        var logits = builder.scope("head") { hidden.linear(weight, dtype: .f32) }
        if let logitSoftCap { logits = logits.softCap(logitSoftCap) }
        let rows = builder.scope("head") { logits.gatherRows(builder.input("logitRows")) }
        builder.output("logits", rows)
        builder.output("tokens", builder.scope("sample") { rows.sample() })
    }
}
