// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A number added to one token's logit: an element of `StepField.logitBias`.
package struct LogitBias: Sendable, Hashable, BitwiseCopyable {
    /// Token id.
    package var token: Int32
    /// Added to the logit; `-infinity` forbids the token.
    package var bias: Float

    /// Pairs an id with its bias.
    package init(token: Int32, bias: Float) {
        self.token = token
        self.bias = bias
    }

    /// Most pairs that one request may have in a step; records reserve memory for them.
    package static let maxPerRequest = 384
}
