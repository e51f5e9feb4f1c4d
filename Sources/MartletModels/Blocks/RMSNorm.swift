// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// Scales rows by the reciprocal of their root mean square, then by a learned weight.
///
/// `y = x / sqrt(mean(x^2) + epsilon) * weight`. Source: Zhang and Sennrich 2019.
public struct RMSNorm: Module {
    /// Name within the parent.
    public let name: String
    /// H.
    public let size: Int
    /// Added to the mean square.
    public let epsilon: Double

    /// Describes a norm.
    public init(_ name: String, size: Int, epsilon: Double) {
        self.name = name
        self.size = size
        self.epsilon = epsilon
    }

    /// Applies it: `[R, H]` gives `[R, H]`.
    public func callAsFunction(_ x: Tensor) -> Tensor {
        scoped(x) { builder in
            x.norm(epsilon: epsilon, weight: builder.ownParameter("weight", [size]))
        }
    }
}
