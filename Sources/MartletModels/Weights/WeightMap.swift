// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How a parameter's value comes from tensors of the checkpoint, without decoding quantized ones.
public enum WeightSource: Sendable, Hashable {
    /// A tensor as it is.
    case tensor(String)
    /// Some rows of a tensor (a fused projection, taken apart).
    case rows(String, Range<Int>)
    /// A tensor plus one (norm weights stored as deviation).
    case plusOne(String)

    /// The tensor's name in the checkpoint.
    public var tensor: String {
        switch self {
        case .tensor(let name), .rows(let name, _), .plusOne(let name): name
        }
    }
}

/// Names of an architecture's parameters in its checkpoints: rules from Martlet's names to tensors.
///
/// A rule's `*` stands for a run of digits (the layer) and is carried over.
public struct WeightMap: Sendable {
    /// One rule.
    public struct Rule: Sendable {
        let pattern: String
        let source: @Sendable (_ layer: String) -> WeightSource

        /// Maps names that match `pattern` to what `source` gives for the text `*` stands for.
        public init(_ pattern: String, _ source: @escaping @Sendable (String) -> WeightSource) {
            self.pattern = pattern
            self.source = source
        }

        /// Maps names to one tensor each; `*` in the tensor's name is the layer.
        public init(_ pattern: String, tensor: String) {
            self.init(pattern) { layer in
                .tensor(
                    tensor.split(separator: "*", omittingEmptySubsequences: false)
                        .joined(separator: layer))
            }
        }
    }

    private let rules: [Rule]

    /// Collects rules; of those that match, the first whose tensor the checkpoint has counts.
    public init(_ rules: [Rule]) { self.rules = rules }

    /// These rules, tried before another map's.
    public func over(_ other: WeightMap) -> WeightMap { WeightMap(rules + other.rules) }

    /// Where a parameter may come from, in the order of the rules.
    public func sources(of name: String) -> [WeightSource] {
        rules.compactMap { rule in
            let parts = rule.pattern.split(separator: "*", omittingEmptySubsequences: false)
            if parts.count == 1 {
                return name == rule.pattern ? rule.source("") : nil
            }
            guard let head = parts.first, let tail = parts.last, name.hasPrefix(head),
                name.hasSuffix(tail), name.count > head.count + tail.count
            else { return nil }
            let layer = name.dropFirst(head.count).dropLast(tail.count)
            return layer.allSatisfy(\.isNumber) ? rule.source(String(layer)) : nil
        }
    }

    /// The names of Hugging Face decoders with q, k, v and gate, up, down projections.
    public static let huggingFaceDecoder = WeightMap(
        [
            ("embedding.weight", "model.embed_tokens.weight"),
            ("head.weight", "lm_head.weight"),
            ("norm.weight", "model.norm.weight"),
            ("layers.*.inputNorm.weight", "model.layers.*.input_layernorm.weight"),
            ("layers.*.postAttentionNorm.weight", "model.layers.*.post_attention_layernorm.weight"),
        ].map { Rule($0.0, tensor: $0.1) }
            + [
                ("attention.q", "self_attn.q_proj"), ("attention.k", "self_attn.k_proj"),
                ("attention.v", "self_attn.v_proj"), ("attention.output", "self_attn.o_proj"),
                ("feedForward.gate", "mlp.gate_proj"), ("feedForward.up", "mlp.up_proj"),
                ("feedForward.down", "mlp.down_proj"),
            ].flatMap { own, theirs in
                ["weight", "bias"].map { part in
                    Rule("layers.*.\(own).\(part)", tensor: "model.layers.*.\(theirs).\(part)")
                }
            })
}
