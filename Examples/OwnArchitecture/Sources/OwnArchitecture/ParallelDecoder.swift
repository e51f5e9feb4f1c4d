// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// A decoder whose attention and feed-forward read the same normed values: `x + a(n(x)) + f(n(x))`.
///
/// Source: Wang and Komatsuzaki 2021 (GPT-J) for the parallel form.
struct ParallelDecoder: ModelArchitecture {
    static let names = ["ParallelForCausalLM"]
    let summary: ModelSummary
    private let epsilon: Double
    private let frequencies: RotaryFrequencies

    init(_ configuration: ConfigurationReader) throws {
        let hiddenSize = try configuration.int("hidden_size")
        let headCount = try configuration.int("num_attention_heads")
        let headDim = try configuration.int("head_dim", default: max(hiddenSize / headCount, 1))
        summary = ModelSummary(
            architecture: "parallel", layerCount: try configuration.int("num_hidden_layers"),
            hiddenSize: hiddenSize, intermediateSize: try configuration.int("intermediate_size"),
            headCount: headCount,
            kvHeadCount: try configuration.int("num_key_value_heads", default: headCount),
            headDim: headDim, vocabularySize: try configuration.int("vocab_size"),
            maxContext: try configuration.int("max_position_embeddings"))
        epsilon = try configuration.positive("rms_norm_eps", default: 1e-5)
        frequencies = try RotaryFrequencies(configuration, headDim: headDim)
        // What would change the answers and is not honoured must not be passed over.
        try configuration.refuse(["attention_bias", "mlp_bias", "tie_word_embeddings"])
    }

    /// Names of LLaMA's checkpoints, and one that is this model's own.
    var weightMap: WeightMap {
        WeightMap([.init("layers.*.norm.weight", tensor: "model.layers.*.ln.weight")])
            .over(.huggingFaceDecoder)
    }

    func record(_ entryPoint: String, _ builder: GraphBuilder) {
        do {
            let group = builder.kvGroup(
                KVGroup(
                    layerCount: summary.layerCount, kvHeadCount: summary.kvHeadCount,
                    headDim: summary.headDim, scheme: KVScheme(dtype: .f32)))
            let layers = (0..<summary.layerCount).map { index in
                ParallelLayer(
                    "layers.\(index)", summary, epsilon, KVLayer(group: group, layer: index))
            }
            DecoderModel(
                vocabularySize: summary.vocabularySize, hiddenSize: summary.hiddenSize,
                layers: layers,
                norm: RMSNorm("norm", size: summary.hiddenSize, epsilon: epsilon),
                tiesEmbedding: false
            ).decode(
                builder,
                StepInputs(
                    positions: builder.input("positions"),
                    inverseFrequencies: builder.constant("frequencies", try frequencies.tensor())))
        } catch { builder.fail(error) }
    }
}

/// One layer: a single norm, and two branches that are added to the residual together.
struct ParallelLayer: DecoderBlock {
    let name: String
    let norm: RMSNorm
    let attention: SelfAttention
    let feedForward: GatedMLP

    init(_ name: String, _ sizes: ModelSummary, _ epsilon: Double, _ cache: KVLayer) {
        self.name = name
        norm = RMSNorm("norm", size: sizes.hiddenSize, epsilon: epsilon)
        attention = SelfAttention(
            "attention",
            .init(
                hiddenSize: sizes.hiddenSize, headCount: sizes.headCount,
                kvHeadCount: sizes.kvHeadCount, headDim: sizes.headDim), cache: cache)
        feedForward = GatedMLP(
            "feedForward", hiddenSize: sizes.hiddenSize, intermediateSize: sizes.intermediateSize)
    }

    func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        scoped(x) { _ in
            let h = norm(x)
            return x + attention(h, step) + feedForward(h)
        }
    }
}
