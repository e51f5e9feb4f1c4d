// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletFormats
package import MartletGraph
package import MartletModels

/// Two entry points that meet in a KV group: `encode` writes keys and values of its tokens for every layer
/// of the decoder, `decode` reads them and keeps its own tokens in a group that `encode` does not know.
package struct EncoderDecoder: ModelArchitecture {
    package static let names = ["EncoderDecoderForConditionalGeneration"]
    package let summary = Sizes.summary("encoder-decoder", layerCount: 2)
    package let entryPoints = ["decode", "encode"]

    package init(_ configuration: ConfigurationReader) throws {}

    /// The one size it comes in.
    package init() {}

    package func record(_ entryPoint: String, _ builder: GraphBuilder) {
        do {
            let step = try Sizes.inputs(builder)
            if entryPoint == "decode" { decode(builder, step) } else { encode(builder, step) }
        } catch { builder.fail(error) }
    }

    private func crossGroup(_ builder: GraphBuilder) -> Int {
        Sizes.group(builder, name: "cross", layerCount: summary.layerCount, kind: .crossAttention)
    }

    private func decode(_ builder: GraphBuilder, _ step: StepInputs) {
        // The shared group is not the first one here: places differ, names do not.
        let own = Sizes.group(builder, layerCount: summary.layerCount)
        let cross = crossGroup(builder)
        let layers = (0..<summary.layerCount).map { index in
            CrossDecoderLayer(
                index: index, layer: Sizes.layer(index, KVLayer(group: own, layer: index)),
                cross: CrossAttention(cache: KVLayer(group: cross, layer: index)))
        }
        Sizes.model(layers).decode(builder, step)
    }

    private func encode(_ builder: GraphBuilder, _ step: StepInputs) {
        let cross = crossGroup(builder)
        let own = Sizes.group(builder, name: "encoder", layerCount: 1)
        let table = builder.parameter("encoder.embedding.weight", [Sizes.vocabulary, Sizes.hidden])
        let x = builder.scope("encoder") { builder.input("tokens").embedding(table) }
        let layer = Sizes.layer(0, KVLayer(group: own, layer: 0), isCausal: false)
        let encoded = builder.scope("encoder") { Sizes.norm("norm")(layer(x, step)) }
        for index in 0..<summary.layerCount {
            builder.scope("layers.\(index)") {
                CrossAttention(cache: KVLayer(group: cross, layer: index)).write(encoded)
            }
        }
    }
}

/// Attention over an encoder's tokens: written once by the encoder's entry point, read by the decoder's.
private struct CrossAttention: Module {
    let name = "crossAttention"
    let cache: KVLayer
    private let q = Linear(
        "q", inputSize: Sizes.hidden, outputSize: Sizes.heads * Sizes.headDim)
    private let k = Linear(
        "k", inputSize: Sizes.hidden, outputSize: Sizes.kvHeads * Sizes.headDim)
    private let v = Linear(
        "v", inputSize: Sizes.hidden, outputSize: Sizes.kvHeads * Sizes.headDim)
    private let output = Linear(
        "output", inputSize: Sizes.heads * Sizes.headDim, outputSize: Sizes.hidden)

    init(cache: KVLayer) { self.cache = cache }

    private var place: [String: AttributeValue] {
        [
            "group": .int(cache.group), "layer": .int(cache.layer),
            "kvHeadCount": .int(Sizes.kvHeads), "headDim": .int(Sizes.headDim),
        ]
    }

    func write(_ encoded: Tensor) {
        _ = scoped(encoded) { $0.record("kvWrite", [k(encoded), v(encoded)], place) }
    }

    func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        scoped(x) { builder in
            let attributes: [String: AttributeValue] = [
                "headCount": .int(Sizes.heads), "scale": 0.25, "window": 0, "softCap": 0.0,
                "causal": false,
            ]
            return output(
                builder.record(
                    "attention", [q(x), builder.record("cache", [], place), step.positions],
                    attributes.merging(place) { own, _ in own }))
        }
    }
}

/// A decoder layer that looks at the encoder's tokens after its own.
private struct CrossDecoderLayer: DecoderBlock {
    let index: Int
    let layer: DecoderLayer
    let cross: CrossAttention
    var name: String { "layers.\(index)" }

    func callAsFunction(_ x: Tensor, _ step: StepInputs) -> Tensor {
        let h = layer(x, step)
        return scoped(h) { _ in h + cross(Sizes.norm("crossNorm")(h), step) }
    }
}
