// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// A pre-norm decoder layer: attention and a gated feed-forward, each with a residual.
public struct DecoderLayer: DecoderBlock {
    /// Name within the parent.
    public let name: String
    let inputNorm: RMSNorm
    let attention: SelfAttention
    let postAttentionNorm: RMSNorm
    let feedForward: GatedMLP

    /// Combines the parts.
    public init(
        _ name: String, inputNorm: RMSNorm, attention: SelfAttention, postAttentionNorm: RMSNorm,
        feedForward: GatedMLP
    ) {
        self.name = name
        self.inputNorm = inputNorm
        self.attention = attention
        self.postAttentionNorm = postAttentionNorm
        self.feedForward = feedForward
    }

    /// Applies it: `[T, H]` gives `[T, H]`.
    public func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        scoped(x) { _ in
            let h = x + attention(inputNorm(x), step)
            return h + feedForward(postAttentionNorm(h))
        }
    }
}
