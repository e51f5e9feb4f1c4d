// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// A layer of one's own, from Martlet's blocks: what its branches add is scaled, as in MiniCPM and Granite.
struct ScaledLayer: DecoderBlock {
    let name: String
    let inputNorm: RMSNorm, attention: SelfAttention
    let postAttentionNorm: RMSNorm, feedForward: GatedMLP

    func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        scoped(x) { _ in
            // Two factors, as two settings of a configuration would give: the rule below makes them one.
            let h = x + attention(inputNorm(x), step) * 0.5 * 0.5
            return h + feedForward(postAttentionNorm(h)) * 0.5 * 0.5
        }
    }
}

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
            ScaledLayer(
                name: "layers.\(index)", inputNorm: RMSNorm("inputNorm", size: 64, epsilon: 1e-5),
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
        // What the rule does to the graph.
        let (model, weights) = (TwoLayers(), RandomWeights())
        var compilation = Compiler.Options()
        compilation.rules = [mergeScales]
        var count = 0
        _ = try Compiler(options: compilation).optimize(model.trace(), weights: weights) { record in
            if record.name == mergeScales.name { count += record.count }
        }
        print("\(mergeScales.name): applied \(count) times")

        // Answers with it and without it.
        print("with it:    \(try answer(model, weights, rules: [mergeScales]))")
        print("without it: \(try answer(model, weights, rules: []))")
    }

    static func answer(
        _ architecture: TwoLayers, _ weights: RandomWeights, rules: [RewriteRule]
    ) throws -> String {
        var options = LoadOptions()
        options.rules = rules
        options.quantize = "int8"
        let model = try LanguageModel.compile(architecture, weights: weights, options: options)
        var settings = SamplingSettings()
        settings.maxTokens = 8
        let answer = try model.generateBatch([
            GenerationRequest(prompt: [1, 2, 3], settings: settings)
        ])[0]
        return answer.tokens.map(String.init).joined(separator: " ")
    }
}
