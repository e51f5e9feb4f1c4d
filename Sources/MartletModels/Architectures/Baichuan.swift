// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletFormats
public import MartletGraph

/// Baichuan and Baichuan2, 7B (rotary positions) and 13B (ALiBi).
///
/// Queries, keys and values are stored stacked (`W_pack`), and Baichuan2 divides the head's rows by
/// their lengths (NormHead), which folds into the weight when an engine is built. All four share one
/// class name and no key tells them apart, so they are known by their sizes: 32 layers rotate and 40 have
/// slopes, as in llama.cpp; 64000 words have a plain head and 125696 a normalized one. Models of
/// other sizes must say `position_embedding_type` (`rope` or `alibi`) and `norm_head`.
/// Source: Yang et al. 2023; Press et al. 2022 for slopes.
public struct Baichuan: ModelArchitecture {
    /// Class names in `config.json`, of the later and the first uploads.
    public static let names = ["BaichuanForCausalLM", "BaiChuanForCausalLM"]
    private let decoder: GatedDecoder
    /// Facts for tools and limits.
    public var summary: ModelSummary { decoder.summary }

    /// Reads a configuration.
    public init(_ configuration: ConfigurationReader) throws {
        // 13B's configuration has `model_max_length` alone.
        var json = configuration.json
        if json["max_position_embeddings"] == nil {
            json["max_position_embeddings"] = .int(
                try configuration.int("model_max_length", default: 4096))
        }
        var decoder = try GatedDecoder(
            ConfigurationReader(json, origin: configuration.origin), name: "baichuan")
        let sizes = decoder.summary
        try configuration.refuse(["tie_word_embeddings"])
        let positions = try configuration.word(
            "position_embedding_type", of: ["rope", "alibi"],
            default: [32: "rope", 40: "alibi"][sizes.layerCount])
        if positions == "alibi" {
            decoder.position = .slopes(Self.slopes(headCount: sizes.headCount))
        }
        decoder.normalizesHead = try configuration.bool(
            "norm_head", default: [64_000: false, 125_696: true][sizes.vocabularySize])
        self.decoder = decoder
    }

    /// ALiBi's slopes of so many heads.
    ///
    /// `2^(-8i/n)`, i = 1 ... n, for the largest power of two n within `headCount`; the other heads take
    /// every other slope of twice as many.
    static func slopes(headCount: Int) -> [Float] {
        var power = 1
        while power * 2 <= headCount { power *= 2 }
        return (0..<headCount).map { head in
            let exponent =
                head < power
                ? -8 * Double(head + 1) / Double(power)
                : -4 * Double(2 * (head - power) + 1) / Double(power)
            return Float(Power.power(2, exponent))
        }
    }

    /// Rows of `W_pack`; GGUF files have the projections apart.
    public var weightMap: WeightMap {
        let queries = summary.headCount * summary.headDim
        let keys = summary.kvHeadCount * summary.headDim
        let parts = [
            ("q", 0..<queries), ("k", queries..<queries + keys),
            ("v", queries + keys..<queries + 2 * keys),
        ]
        return WeightMap(
            parts.map { part, rows in
                WeightMap.Rule("layers.*.attention.\(part).weight") { layer in
                    .rows("model.layers.\(layer).self_attn.W_pack.weight", rows)
                }
            }
        ).over(.huggingFaceDecoder)
    }

    /// Records the decoder.
    public func record(_ entryPoint: String, _ builder: GraphBuilder) { decoder.record(builder) }
}
