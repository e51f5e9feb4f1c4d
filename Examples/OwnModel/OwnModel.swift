// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// A model of one's own with random weights, and a rewrite rule of one's own: compiled and run.
struct TwoLayers: ModelArchitecture {
    static let names = ["TwoLayersForCausalLM"]
    let summary = ModelSummary(
        architecture: "two-layers", layerCount: 2, hiddenSize: 64, intermediateSize: 128,
        headCount: 4, kvHeadCount: 2, headDim: 16, vocabularySize: 100, maxContext: 128)

    init() {}
    init(_ configuration: ConfigurationReader) throws {}

    func record(_ entryPoint: String, _ builder: GraphBuilder) {
        let group = builder.kvGroup(
            KVGroup(layerCount: 2, kvHeadCount: 2, headDim: 16, scheme: KVScheme(dtype: .f32)))
        let layers = (0..<2).map { index in
            DecoderLayer(
                "layers.\(index)", inputNorm: RMSNorm("inputNorm", size: 64, epsilon: 1e-5),
                attention: SelfAttention(
                    "attention", .init(hiddenSize: 64, headCount: 4, kvHeadCount: 2, headDim: 16),
                    cache: KVLayer(group: group, layer: index)),
                postAttentionNorm: RMSNorm("postAttentionNorm", size: 64, epsilon: 1e-5),
                feedForward: GatedMLP("feedForward", hiddenSize: 64, intermediateSize: 128))
        }
        DecoderModel(
            vocabularySize: 100, hiddenSize: 64, layers: layers,
            norm: RMSNorm("norm", size: 64, epsilon: 1e-5), tiesEmbedding: true
        ).decode(builder, StepInputs(positions: builder.input("positions")))
    }
}

/// `scale(scale(x, a), b) = scale(x, a * b)`.
let mergeScales = RewriteRule(
    "merge-scales", "scale(scale(x, a), b) = scale(x, a * b)",
    pattern: .op("scale", .op("scale", .any("x"), as: "inner"), as: "outer")
) { match, graph in
    let factor =
        (match.node("inner").attributes["factor"]?.float ?? 1)
        * (match.node("outer").attributes["factor"]?.float ?? 1)
    return try graph.insert(
        "scale", [match.value("x")], ["factor": .float(factor)], path: match.root.path,
        before: match.root.id)
}

@main
enum OwnModel {
    static func main() throws {
        var options = LoadOptions()
        options.rules = [mergeScales]
        options.quantize = "int8"
        let model = try LanguageModel.compile(
            TwoLayers(), weights: RandomWeights(), options: options)
        var settings = SamplingSettings()
        settings.maxTokens = 8
        let answer = try model.generateBatch([
            GenerationRequest(prompt: [1, 2, 3], settings: settings)
        ])[0]
        print(answer.tokens.map(String.init).joined(separator: " "))
    }
}
