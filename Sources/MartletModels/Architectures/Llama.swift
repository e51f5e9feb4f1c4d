// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletFormats
public import MartletGraph

/// LLaMA 1, 2 and 3 and models of the same shape, such as SmolLM2.
public struct Llama: ModelArchitecture {
    /// Class names in `config.json`.
    public static let names = ["LlamaForCausalLM"]
    /// Facts for tools and limits.
    public let summary: ModelSummary
    private let epsilon: Double
    private let frequencies: RotaryFrequencies
    private let activation: String
    private let hasAttentionBias: Bool
    private let hasMLPBias: Bool
    private let tiesEmbedding: Bool

    /// Reads a configuration.
    public init(_ configuration: ConfigurationReader) throws {
        try configuration.refuse(["quantization_config", "sliding_window"])
        let hiddenSize = try configuration.int("hidden_size")
        let headCount = try configuration.int("num_attention_heads", limit: 1 << 16)
        let headDim = try configuration.int(
            "head_dim", default: max(hiddenSize / headCount, 1), limit: 1 << 12)
        summary = ModelSummary(
            architecture: "llama",
            layerCount: try configuration.int("num_hidden_layers", limit: 10_000),
            hiddenSize: hiddenSize, intermediateSize: try configuration.int("intermediate_size"),
            headCount: headCount,
            kvHeadCount: try configuration.int(
                "num_key_value_heads", default: headCount, limit: 1 << 16),
            headDim: headDim, vocabularySize: try configuration.int("vocab_size"),
            maxContext: try configuration.int("max_position_embeddings", default: 2048))
        epsilon = try configuration.positive("rms_norm_eps", default: 1e-6)
        activation = try configuration.word("hidden_act", of: ["silu"], default: "silu")
        hasAttentionBias = try configuration.bool("attention_bias", default: false)
        hasMLPBias = try configuration.bool("mlp_bias", default: false)
        tiesEmbedding = try configuration.bool("tie_word_embeddings", default: false)
        frequencies = try RotaryFrequencies(configuration, headDim: headDim)
    }

    /// Records the decoder.
    public func record(_ entryPoint: String, _ builder: GraphBuilder) {
        let group = builder.kvGroup(
            KVGroup(
                layerCount: summary.layerCount, kvHeadCount: summary.kvHeadCount,
                headDim: summary.headDim, scheme: KVScheme(dtype: .f32)))
        var attention = SelfAttention.Configuration(
            hiddenSize: summary.hiddenSize, headCount: summary.headCount,
            kvHeadCount: summary.kvHeadCount, headDim: summary.headDim)
        attention.hasInputBias = hasAttentionBias
        attention.hasOutputBias = hasAttentionBias
        func norm(_ name: String) -> RMSNorm {
            RMSNorm(name, size: summary.hiddenSize, epsilon: epsilon)
        }
        let layers = (0..<summary.layerCount).map { index in
            DecoderLayer(
                "layers.\(index)", inputNorm: norm("inputNorm"),
                attention: SelfAttention(
                    "attention", attention, cache: KVLayer(group: group, layer: index)),
                postAttentionNorm: norm("postAttentionNorm"),
                feedForward: GatedMLP(
                    "feedForward", hiddenSize: summary.hiddenSize,
                    intermediateSize: summary.intermediateSize, activation: activation,
                    hasBias: hasMLPBias))
        }
        let model = DecoderModel(
            vocabularySize: summary.vocabularySize, hiddenSize: summary.hiddenSize, layers: layers,
            norm: norm("norm"), tiesEmbedding: tiesEmbedding)
        do {
            let step = StepInputs(
                positions: builder.input("positions"),
                inverseFrequencies: builder.constant(
                    "rotary.inverseFrequencies", try frequencies.tensor()))
            model.decode(builder, step)
        } catch { builder.fail(error) }
    }
}
