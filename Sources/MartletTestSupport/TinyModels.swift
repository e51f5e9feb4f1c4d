// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletFormats
package import MartletGraph
package import MartletModels

/// Architectures that take a millisecond to run.
package enum TinyModels {
    /// A LLaMA of two layers, H = 64, D = 16, V = 96.
    ///
    /// - Parameters:
    ///   - headCount: N.
    ///   - kvHeadCount: K; N for MHA, 1 for MQA, between for GQA.
    ///   - tied: Whether the head is the embedding table.
    /// - Throws: `MartletError` if the configuration is refused.
    package static func llama(
        headCount: Int = 4, kvHeadCount: Int = 2, headDim: Int = 16, tied: Bool = false
    ) throws -> Llama {
        try Llama(
            ConfigurationReader(
                JSONObject([
                    ("hidden_size", 64), ("intermediate_size", 96), ("num_hidden_layers", 2),
                    ("num_attention_heads", .int(headCount)),
                    ("num_key_value_heads", .int(kvHeadCount)), ("head_dim", .int(headDim)),
                    ("vocab_size", 96), ("max_position_embeddings", 256),
                    ("rms_norm_eps", 1e-5), ("tie_word_embeddings", .bool(tied)),
                ]), origin: "tiny llama"))
    }
}

/// The sizes that the models defined here share.
enum Sizes {
    static let hidden = 64, intermediate = 96, heads = 4, kvHeads = 2, headDim = 16
    static let vocabulary = 80

    static func summary(_ name: String, layerCount: Int) -> ModelSummary {
        ModelSummary(
            architecture: name, layerCount: layerCount, hiddenSize: hidden,
            intermediateSize: intermediate, headCount: heads, kvHeadCount: kvHeads,
            headDim: headDim, vocabularySize: vocabulary, maxContext: 256)
    }

    static func layer(
        _ index: Int, _ cache: KVLayer, isCausal: Bool = true
    ) -> DecoderLayer {
        DecoderLayer(
            "layers.\(index)", inputNorm: norm("inputNorm"),
            attention: attention(cache, isCausal: isCausal),
            postAttentionNorm: norm("postAttentionNorm"), feedForward: feedForward)
    }

    static func norm(_ name: String) -> RMSNorm { RMSNorm(name, size: hidden, epsilon: 1e-5) }

    static func attention(_ cache: KVLayer, isCausal: Bool = true) -> SelfAttention {
        var configuration = SelfAttention.Configuration(
            hiddenSize: hidden, headCount: heads, kvHeadCount: kvHeads, headDim: headDim)
        configuration.isCausal = isCausal
        return SelfAttention("attention", configuration, cache: cache)
    }

    static var feedForward: GatedMLP {
        GatedMLP("feedForward", hiddenSize: hidden, intermediateSize: intermediate)
    }

    static func model(_ layers: [any DecoderBlock]) -> DecoderModel {
        DecoderModel(
            vocabularySize: vocabulary, hiddenSize: hidden, layers: layers, norm: norm("norm"),
            tiesEmbedding: true)
    }

    static func group(
        _ builder: GraphBuilder, name: String = KVGroup.defaultName, layerCount: Int,
        window: Int? = nil, kind: KVGroup.Kind = .selfAttention
    ) -> Int {
        builder.kvGroup(
            KVGroup(
                name: name, layerCount: layerCount, kvHeadCount: kvHeads, headDim: headDim,
                scheme: KVScheme(dtype: .f32), window: window, kind: kind))
    }

    static func inputs(_ builder: GraphBuilder) throws -> StepInputs {
        StepInputs(
            positions: builder.input("positions"),
            inverseFrequencies: builder.constant(
                "rotary.inverseFrequencies",
                try RotaryFrequencies(rotaryDim: headDim, base: 10_000).tensor()))
    }
}

/// Layers that see a window of 20 tokens alternate with layers of another window: two KV groups.
package struct AlternatingWindows: ModelArchitecture {
    package static let names = ["AlternatingWindowsForCausalLM"]
    /// Windows of even and odd layers.
    package static let windows: [Int] = [20, 37]
    package let summary = Sizes.summary("alternating-windows", layerCount: 4)

    package init(_ configuration: ConfigurationReader) throws {}

    /// The one size it comes in.
    package init() {}

    package func record(_ entryPoint: String, _ builder: GraphBuilder) {
        do {
            let groups = Self.windows.map {
                Sizes.group(builder, name: "window\($0)", layerCount: 2, window: $0)
            }
            let layers = (0..<4).map { index in
                Sizes.layer(
                    index,
                    KVLayer(
                        group: groups[index % 2], layer: index / 2,
                        window: Self.windows[index % 2]))
            }
            Sizes.model(layers).decode(builder, try Sizes.inputs(builder))
        } catch { builder.fail(error) }
    }
}

/// A decoder with a second entry point that gives one unit vector per request: output `embedding`.
package struct DecoderAndEmbedder: ModelArchitecture {
    package static let names = ["DecoderAndEmbedder"]
    package let summary = Sizes.summary("decoder-and-embedder", layerCount: 2)
    package let entryPoints = ["decode", "embed"]

    package init(_ configuration: ConfigurationReader) throws {}

    /// The one size it comes in.
    package init() {}

    package func record(_ entryPoint: String, _ builder: GraphBuilder) {
        do {
            let group = Sizes.group(builder, layerCount: 2)
            let model = Sizes.model(
                (0..<2).map { Sizes.layer($0, KVLayer(group: group, layer: $0)) })
            let step = try Sizes.inputs(builder)
            if entryPoint == "decode" {
                model.decode(builder, step)
            } else {
                let hidden = model.hidden(builder, step)
                builder.output(
                    "embedding", builder.scope("pool") { hidden.meanPool().l2Normalize() })
            }
        } catch { builder.fail(error) }
    }
}
