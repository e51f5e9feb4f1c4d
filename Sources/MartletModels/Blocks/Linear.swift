// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// `x * transpose(weight) + bias`: `[R, inputSize]` gives `[R, outputSize]`.
public struct Linear: Module {
    /// Name within the parent.
    public let name: String
    /// K.
    public let inputSize: Int
    /// N.
    public let outputSize: Int
    /// Whether there is a bias.
    public let hasBias: Bool

    /// Describes a linear layer.
    public init(_ name: String, inputSize: Int, outputSize: Int, hasBias: Bool = false) {
        self.name = name
        self.inputSize = inputSize
        self.outputSize = outputSize
        self.hasBias = hasBias
    }

    /// Applies it.
    public func callAsFunction(_ x: Tensor) -> Tensor {
        scoped(x) { builder in
            x.linear(
                builder.ownParameter("weight", [outputSize, inputSize]),
                bias: hasBias ? builder.ownParameter("bias", [outputSize]) : nil)
        }
    }
}
