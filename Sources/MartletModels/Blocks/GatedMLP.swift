// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// Feed-forward with a gate: `down(activation(gate(x)) * up(x))`.
public struct GatedMLP: Module {
    /// Name within the parent.
    public let name: String
    let gate: Linear
    let up: Linear
    let down: Linear
    let activation: String

    /// Describes the block.
    ///
    /// - Parameters:
    ///   - name: Name within the parent.
    ///   - hiddenSize: H.
    ///   - intermediateSize: F.
    ///   - activation: `silu`, `gelu`, `geluTanh` or `relu`.
    ///   - hasBias: Whether the linears have biases.
    public init(
        _ name: String, hiddenSize: Int, intermediateSize: Int, activation: String = "silu",
        hasBias: Bool = false
    ) {
        self.name = name
        self.activation = activation
        gate = Linear(
            "gate", inputSize: hiddenSize, outputSize: intermediateSize, hasBias: hasBias)
        up = Linear("up", inputSize: hiddenSize, outputSize: intermediateSize, hasBias: hasBias)
        down = Linear("down", inputSize: intermediateSize, outputSize: hiddenSize, hasBias: hasBias)
    }

    /// Applies it: `[T, H]` gives `[T, H]`.
    public func callAsFunction(_ x: Tensor) -> Tensor {
        scoped(x) { _ in down(gate(x).activation(activation) * up(x)) }
    }
}
