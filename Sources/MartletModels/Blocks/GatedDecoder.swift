// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletFormats
public import MartletGraph

/// A decoder of LLaMA's form: pre-norm layers of causal attention and a gated feed-forward.
///
/// Reads the keys of `config.json` that LLaMA's descendants share, refuses those that none of them
/// honours, and records the graph; an architecture sets what it does otherwise.
public struct GatedDecoder: Sendable {
    /// How attention knows where tokens are.
    public enum Position: Sendable, Hashable {
        /// Queries and keys are rotated.
        case rotary(RotaryFrequencies)
        /// Scores fall with distance, by a slope of each head (ALiBi).
        case slopes([Float])
    }

    /// Facts for tools and limits.
    public var summary: ModelSummary
    /// Added to mean squares in norms.
    public var epsilon: Double
    /// Nonlinearity of the gate.
    public var activation: String
    /// Whether the head is the embedding table.
    public var tiesEmbedding: Bool
    /// Whether the head's rows are divided by their lengths.
    public var normalizesHead = false
    /// How attention knows where tokens are.
    public var position: Position
    /// Whether queries, keys and values have biases.
    public var hasInputBias = false
    /// Whether attention's output has a bias.
    public var hasOutputBias = false
    /// Whether the feed-forward has biases.
    public var hasMLPBias = false
    /// Tokens that each layer sees back, the query's own included; nil for all.
    public var windows: [Int?]

    /// Reads the keys that all descendants share.
    ///
    /// - Parameters:
    ///   - configuration: The model's `config.json`.
    ///   - name: The architecture, for tools.
    ///   - window: Window of the layers that slide, if any.
    ///   - firstWindow: First layer that slides, where the configuration has no `layer_types`.
    /// - Throws: `MartletError` `.unsupported` naming the key that cannot be honoured.
    public init(
        _ configuration: ConfigurationReader, name: String, window: Int? = nil, firstWindow: Int = 0
    ) throws {
        try configuration.refuse(Self.unknownKeys)
        try configuration.refuse(["num_experts", "num_local_experts"], unless: [0, 1])
        try configuration.refuse(Self.factorKeys, unless: [1])
        let hiddenSize = try configuration.int("hidden_size")
        let headCount = try configuration.int("num_attention_heads", limit: 1 << 16)
        let headDim = try configuration.int(
            "head_dim", default: max(hiddenSize / headCount, 1), limit: 1 << 12)
        let kvHeadCount = try configuration.int(
            "num_key_value_heads", default: headCount, limit: 1 << 16)
        guard headCount % kvHeadCount == 0 else {
            throw configuration.failure(
                "'num_key_value_heads' is \(kvHeadCount), which does not divide the "
                    + "\(headCount) of 'num_attention_heads'")
        }
        let summary = ModelSummary(
            architecture: name,
            layerCount: try configuration.int("num_hidden_layers", limit: 1 << 10),
            hiddenSize: hiddenSize, intermediateSize: try configuration.int("intermediate_size"),
            headCount: headCount,
            kvHeadCount: kvHeadCount, headDim: headDim,
            vocabularySize: try configuration.int("vocab_size"),
            // Step records and block tables are laid out for it.
            maxContext: try configuration.int(
                "max_position_embeddings", default: 2048, limit: 1 << 24))
        self.summary = summary
        epsilon = try configuration.positive("rms_norm_eps", default: 1e-6)
        activation = try configuration.word("hidden_act", of: ["silu"], default: "silu")
        tiesEmbedding = try configuration.bool("tie_word_embeddings", default: false)
        position = .rotary(try RotaryFrequencies(configuration, headDim: headDim))
        let kinds = try configuration.words(
            "layer_types", of: window == nil ? ["full_attention"] : Self.layerKinds,
            count: summary.layerCount)
        // A window that no query outgrows is none: one KV group then serves all layers.
        let useful = window.flatMap { $0 < summary.maxContext ? $0 : nil }
        windows = (0..<summary.layerCount).map { index in
            let slides = kinds.map { $0[index] == "sliding_attention" } ?? (index >= firstWindow)
            return slides ? useful : nil
        }
    }

    private static let layerKinds = ["full_attention", "sliding_attention"]
    /// Keys of other models that change the mathematics.
    private static let unknownKeys = [
        "quantization_config", "attn_logit_softcapping", "final_logit_softcapping",
        "query_pre_attn_scalar", "clip_qkv", "use_qk_norm", "qk_layernorm", "use_mrope",
        "rope_interleave", "logit_scale", "alibi_bias_max", "attention_scale",
    ]
    /// The same, with a value that changes nothing.
    private static let factorKeys = [
        "partial_rotary_factor", "attention_multiplier", "embedding_multiplier",
        "residual_multiplier", "logits_scaling",
    ]

    /// The window under `sliding_window`: nil for null and 0.
    ///
    /// - Parameter absent: What holds where there is no such key.
    /// - Throws: `MartletError` `.unsupported` for anything but a number of tokens.
    public static func window(
        _ configuration: ConfigurationReader, absent: Int? = nil
    ) throws -> Int? {
        guard let value = configuration.json["sliding_window"] else { return absent }
        return value.isNull || value.int == 0 ? nil : try configuration.int("sliding_window")
    }

    /// Records the decoder.
    public func record(_ builder: GraphBuilder) {
        var groups: [Int?: Int] = [:]
        for window in windows where groups[window] == nil {
            groups[window] = builder.kvGroup(
                KVGroup(
                    name: window.map { "window\($0)" } ?? KVGroup.defaultName,
                    layerCount: windows.count { $0 == window }, kvHeadCount: summary.kvHeadCount,
                    headDim: summary.headDim, scheme: KVScheme(dtype: .f32), window: window))
        }
        let layers = windows.indices.map { index in
            let window = windows[index]
            return layer(
                index,
                KVLayer(
                    group: groups[window] ?? 0, layer: windows[..<index].count { $0 == window },
                    window: window))
        }
        let model = DecoderModel(
            vocabularySize: summary.vocabularySize, hiddenSize: summary.hiddenSize, layers: layers,
            norm: norm("norm"), tiesEmbedding: tiesEmbedding, normalizesHead: normalizesHead)
        do { model.decode(builder, try inputs(builder)) } catch { builder.fail(error) }
    }

    private func inputs(_ builder: GraphBuilder) throws -> StepInputs {
        let positions = builder.input("positions")
        switch position {
        case .rotary(let frequencies):
            return StepInputs(
                positions: positions,
                inverseFrequencies: builder.constant(
                    "rotary.inverseFrequencies", try frequencies.tensor()))
        case .slopes(let slopes):
            return StepInputs(
                positions: positions,
                slopes: builder.constant(
                    "attention.slopes", try TensorData(slopes, shape: [slopes.count])))
        }
    }

    private func norm(_ name: String) -> RMSNorm {
        RMSNorm(name, size: summary.hiddenSize, epsilon: epsilon)
    }

    private func layer(_ index: Int, _ cache: KVLayer) -> DecoderLayer {
        var attention = SelfAttention.Configuration(
            hiddenSize: summary.hiddenSize, headCount: summary.headCount,
            kvHeadCount: summary.kvHeadCount, headDim: summary.headDim)
        attention.hasInputBias = hasInputBias
        attention.hasOutputBias = hasOutputBias
        return DecoderLayer(
            "layers.\(index)", inputNorm: norm("inputNorm"),
            attention: SelfAttention("attention", attention, cache: cache),
            postAttentionNorm: norm("postAttentionNorm"),
            feedForward: GatedMLP(
                "feedForward", hiddenSize: summary.hiddenSize,
                intermediateSize: summary.intermediateSize, activation: activation,
                hasBias: hasMLPBias))
    }
}
