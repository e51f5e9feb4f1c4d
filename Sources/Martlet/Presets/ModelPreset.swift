// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
public import MartletModels

/// The shape of a published model without its weights: for measuring and planning where there is no
/// checkpoint.
///
/// A preset is the model's `config.json`, no more: its architecture must be registered.
public struct ModelPreset: Sendable, Hashable {
    /// Name on the command line.
    public let name: String
    /// Class name in `config.json`.
    public let architecture: String
    /// Sizes and rules, by the keys of `config.json`.
    let keys: JSONObject

    init(_ name: String, _ architecture: String, _ keys: [(String, JSONValue)]) {
        self.name = name
        self.architecture = architecture
        self.keys = JSONObject(keys)
    }

    /// The preset of a name.
    ///
    /// - Throws: `MartletError` `.notFound` listing the names.
    public static func named(_ name: String) throws -> ModelPreset {
        guard let preset = all.first(where: { $0.name == name.lowercased() }) else {
            throw MartletError(
                .notFound, "there is no preset '\(name)'",
                mend: "Presets: \(all.map(\.name).joined(separator: ", "))")
        }
        return preset
    }

    /// The shape with room for a longer context, which random weights do not mind.
    func reaching(_ context: Int?) -> ModelPreset {
        guard let context else { return self }
        var keys = keys
        for key in ["max_position_embeddings", "model_max_length"] {
            if let known = keys[key]?.int, known < context { keys[key] = .int(context) }
        }
        return ModelPreset(name, architecture, keys.members.map { ($0.key, $0.value) })
    }

    /// The architecture with the preset's sizes.
    ///
    /// - Throws: `MartletError` `.unsupported` if the registry has no such architecture.
    public func model(
        _ architectures: ModelRegistry = .builtIn
    ) throws -> any ModelArchitecture {
        try architectures.architecture(
            named: [architecture], ConfigurationReader(keys, origin: "preset \(name)"))
    }
}

extension ModelPreset {
    /// All presets, small ones first.
    public static let all: [ModelPreset] = [
        .decoder(
            "smollm2-135m", hidden: 576, feedForward: 1536, layers: 30, heads: 9, kvHeads: 3,
            vocabulary: 49_152, context: 8192,
            [("rope_theta", .int(100_000)), ("tie_word_embeddings", .bool(true))]),
        .decoder(
            "tinyllama-1.1b", hidden: 2048, feedForward: 5632, layers: 22, heads: 32, kvHeads: 4,
            vocabulary: 32_000, context: 2048),
        // Llama 3.2.
        .decoder(
            "llama-3b", hidden: 3072, feedForward: 8192, layers: 28, heads: 24, kvHeads: 8,
            vocabulary: 128_256, context: 131_072,
            [
                ("rope_theta", .int(500_000)), ("tie_word_embeddings", .bool(true)),
                (
                    "rope_scaling",
                    .object(
                        JSONObject([
                            ("rope_type", .string("llama3")), ("factor", .int(32)),
                            ("low_freq_factor", .int(1)), ("high_freq_factor", .int(4)),
                            ("original_max_position_embeddings", .int(8192)),
                        ]))
                ),
            ]),
        // Llama 2.
        .decoder(
            "llama-7b", hidden: 4096, feedForward: 11_008, layers: 32, heads: 32, kvHeads: 32,
            vocabulary: 32_000, context: 4096),
        .decoder(
            "mistral-7b", "MistralForCausalLM", hidden: 4096, feedForward: 14_336, layers: 32,
            heads: 32, kvHeads: 8, vocabulary: 32_000, context: 32_768,
            [("rope_theta", .int(10_000)), ("sliding_window", .int(4096))]),
        .decoder(
            "qwen2-7b", "Qwen2ForCausalLM", hidden: 3584, feedForward: 18_944, layers: 28,
            heads: 28, kvHeads: 4, vocabulary: 152_064, context: 32_768,
            [
                ("rope_theta", .int(1_000_000)), ("rms_norm_eps", .double(1e-6)),
                ("use_sliding_window", .bool(false)),
            ]),
        .decoder(
            "baichuan2-7b", "BaichuanForCausalLM", hidden: 4096, feedForward: 11_008, layers: 32,
            heads: 32, kvHeads: 32, vocabulary: 125_696, context: 4096,
            [
                ("model_type", .string("baichuan")), ("model_max_length", .int(4096)),
                ("rms_norm_eps", .double(1e-6)), ("z_loss_weight", .int(0)),
            ]),
        .decoder(
            "baichuan2-13b", "BaichuanForCausalLM", hidden: 5120, feedForward: 13_696, layers: 40,
            heads: 40, kvHeads: 40, vocabulary: 125_696, context: nil,
            [
                ("model_type", .string("baichuan")), ("model_max_length", .int(4096)),
                ("rms_norm_eps", .double(1e-6)), ("z_loss_weight", .int(0)),
            ]),
    ]

    /// A decoder by its sizes; keys in `more` replace the usual ones.
    private static func decoder(
        _ name: String, _ architecture: String = "LlamaForCausalLM", hidden: Int, feedForward: Int,
        layers: Int, heads: Int, kvHeads: Int, vocabulary: Int, context: Int?,
        _ more: [(String, JSONValue)] = []
    ) -> ModelPreset {
        var keys: [(String, JSONValue)] = [
            ("hidden_size", .int(hidden)), ("intermediate_size", .int(feedForward)),
            ("num_hidden_layers", .int(layers)), ("num_attention_heads", .int(heads)),
            ("num_key_value_heads", .int(kvHeads)), ("vocab_size", .int(vocabulary)),
            ("hidden_act", .string("silu")), ("torch_dtype", .string("bfloat16")),
            ("rms_norm_eps", .double(1e-5)),
        ]
        if let context { keys.append(("max_position_embeddings", .int(context))) }
        return ModelPreset(name, architecture, keys + more)
    }
}
