// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletGraph

/// Self-attention over the paged cache: MHA (K = N), GQA (K < N) and MQA (K = 1) alike.
///
/// N query heads, K KV heads, D head dim. Queries and keys are rotated unless the step has no
/// frequencies.
public struct SelfAttention: Module {
    /// Sizes and rules of an attention block.
    public struct Configuration: Sendable {
        /// H.
        public var hiddenSize: Int
        /// N.
        public var headCount: Int
        /// K.
        public var kvHeadCount: Int
        /// D.
        public var headDim: Int
        /// Whether q, k and v have biases.
        public var hasInputBias = false
        /// Whether the output linear has a bias.
        public var hasOutputBias = false
        /// Multiplies scores; `1 / sqrt(D)` if nil.
        public var scale: Double?
        /// Limits scores to `cap * tanh(score / cap)`.
        public var softCap: Double?
        /// Pairing of rotary elements: `half` or `interleaved`.
        public var rotaryStyle = "half"
        /// Factor on rotated values (long-context variants).
        public var rotaryMagnitude = 1.0
        /// Whether a row sees no later ones; an encoder's rows see all.
        public var isCausal = true

        /// Sets the sizes.
        public init(hiddenSize: Int, headCount: Int, kvHeadCount: Int, headDim: Int) {
            self.hiddenSize = hiddenSize
            self.headCount = headCount
            self.kvHeadCount = kvHeadCount
            self.headDim = headDim
        }
    }

    /// Name within the parent.
    public let name: String
    let configuration: Configuration
    let cache: KVLayer
    let q: Linear
    let k: Linear
    let v: Linear
    let output: Linear

    /// Describes the block.
    ///
    /// - Parameters:
    ///   - name: Name within the parent.
    ///   - configuration: Sizes and rules.
    ///   - cache: The KV layer that holds its keys and values.
    public init(_ name: String, _ configuration: Configuration, cache: KVLayer) {
        self.name = name
        self.configuration = configuration
        self.cache = cache
        let queries = configuration.headCount * configuration.headDim
        let keys = configuration.kvHeadCount * configuration.headDim
        let bias = configuration.hasInputBias
        q = Linear("q", inputSize: configuration.hiddenSize, outputSize: queries, hasBias: bias)
        k = Linear("k", inputSize: configuration.hiddenSize, outputSize: keys, hasBias: bias)
        v = Linear("v", inputSize: configuration.hiddenSize, outputSize: keys, hasBias: bias)
        output = Linear(
            "output", inputSize: queries, outputSize: configuration.hiddenSize,
            hasBias: configuration.hasOutputBias)
    }

    /// Applies it: `[T, H]` gives `[T, H]`.
    public func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        scoped(x) { builder in
            let headDim = configuration.headDim
            func rotate(_ t: Tensor) -> Tensor {
                guard let frequencies = step.inverseFrequencies else { return t }
                return builder.record(
                    "rotary", [t, step.positions, frequencies],
                    [
                        "headDim": .int(headDim), "style": .string(configuration.rotaryStyle),
                        "magnitude": .float(configuration.rotaryMagnitude),
                    ])
            }
            let (queries, keys, values) = (rotate(q(x)), rotate(k(x)), v(x))
            let state = builder.record(
                "kvWrite", [keys, values],
                [
                    "group": .int(cache.group), "layer": .int(cache.layer),
                    "kvHeadCount": .int(configuration.kvHeadCount), "headDim": .int(headDim),
                ])
            let scale = configuration.scale ?? 1 / Double(headDim).squareRoot()
            let context = builder.record(
                "attention", [queries, state, step.positions] + (step.slopes.map { [$0] } ?? []),
                [
                    "group": .int(cache.group), "layer": .int(cache.layer),
                    "headCount": .int(configuration.headCount),
                    "kvHeadCount": .int(configuration.kvHeadCount), "headDim": .int(headDim),
                    "scale": .float(scale), "window": .int(cache.window ?? 0),
                    "softCap": .float(configuration.softCap ?? 0),
                    "causal": .bool(configuration.isCausal),
                ])
            return output(context)
        }
    }
}

/// A layer's place in the KV cache.
public struct KVLayer: Sendable {
    /// KV group index.
    public let group: Int
    /// Layer within the group.
    public let layer: Int
    /// Tokens a query sees back, itself included; nil for all.
    public let window: Int?

    /// Names a place.
    public init(group: Int, layer: Int, window: Int? = nil) {
        self.group = group
        self.layer = layer
        self.window = window
    }
}
