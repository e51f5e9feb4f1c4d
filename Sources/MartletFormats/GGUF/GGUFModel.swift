// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A GGUF file seen the Hugging Face way: its metadata as `config.json`, its tensors renamed.
struct GGUFModel: CheckpointSource {
    private let file: GGUFFile
    /// GGUF name of each Hugging Face name.
    private let fileNames: [String: String]
    /// Heads whose rows the converter interleaved, by projection.
    private let permutedHeads: [String: Int]

    static func open(_ path: String) throws -> ModelSource {
        let file = try GGUFFile(path: path)
        do { return try source(file, path) } catch let error as MartletError {
            throw error.adding("file", path)
        }
    }

    private static func source(_ file: GGUFFile, _ path: String) throws -> ModelSource {
        guard let architecture = file.metadata["general.architecture"]?.string else {
            throw MartletError(.unsupported, "the file does not name its architecture")
        }
        let reader = ConfigurationReader(
            try configuration(file, architecture), origin: path,
            spellings: Dictionary(
                keys.map { ($0.value, "\(architecture).\($0.key)") }, uniquingKeysWith: { $1 }))
        return ModelSource(
            architectures: [className(architecture, reader)],
            configuration: reader,
            checkpoint: GGUFModel(file, architecture, reader),
            tokenizer: .gguf(file.metadata),
            chatTemplate: file.metadata["tokenizer.chat_template"]?.string, generation: nil,
            files: [path], displayName: FileStatus.name(path))
    }

    /// The class name of an architecture that Hugging Face names otherwise.
    private static func className(
        _ architecture: String, _ configuration: ConfigurationReader
    ) -> String {
        switch architecture {
        // Files of both are named `llama`; a window makes the difference.
        case "llama":
            (configuration.json["sliding_window"]?.int ?? 0) > 0
                ? "MistralForCausalLM" : "LlamaForCausalLM"
        case "qwen2": "Qwen2ForCausalLM"
        case "baichuan": "BaichuanForCausalLM"
        default: architecture
        }
    }

    /// GGUF keys after the architecture's prefix, and their names in `config.json`.
    private static let keys = [
        "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
        "block_count": "num_hidden_layers", "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads", "rope.freq_base": "rope_theta",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
        "context_length": "max_position_embeddings", "vocab_size": "vocab_size",
        "attention.key_length": "head_dim", "attention.sliding_window": "sliding_window",
        "expert_count": "num_local_experts", "logit_scale": "logit_scale",
        "attention.scale": "attention_scale", "attention.clamp_kqv": "clip_qkv",
        "attention.max_alibi_bias": "alibi_bias_max", "residual_scale": "residual_multiplier",
        "embedding_scale": "embedding_multiplier",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    ]

    private static func configuration(
        _ file: GGUFFile, _ architecture: String
    ) throws -> JSONObject {
        var config = JSONObject()
        config["model_type"] = .string(architecture)
        config["hidden_act"] = .string("silu")
        for (key, name) in keys.sorted(by: { $0.key < $1.key }) {
            switch file.metadata["\(architecture).\(key)"] {
            case .int(let value): config[name] = .int(value)
            case .float(let value): config[name] = .double(value)
            case nil: break
            // One number a layer is fine where they are all the same.
            case .array(let values)
            where !values.isEmpty && values.allSatisfy { $0.int == values[0].int }
                && values[0].int != nil:
                config[name] = values[0].int.map(JSONValue.int)
            default:
                throw MartletError(
                    .unsupported, "'\(architecture).\(key)' is not one number",
                    mend: "Use a file whose layers are alike")
            }
        }
        if config["vocab_size"] == nil, let shape = try? file.shape(of: "token_embd.weight") {
            config["vocab_size"] = .int(shape[0])
        }
        if config["num_key_value_heads"] == nil {
            config["num_key_value_heads"] = config["num_attention_heads"]
        }
        config["tie_word_embeddings"] = .bool(!file.contains("output.weight"))
        config["attention_bias"] = .bool(file.contains("blk.0.attn_q.bias"))
        config["mlp_bias"] = .bool(file.contains("blk.0.ffn_gate.bias"))
        config["rope_scaling"] = try GGUFRope.scaling(file, architecture)
        config["partial_rotary_factor"] = rotaryShare(file, architecture, config)
        // Heads were normalized when the file was made, if at all, and doing it twice is harmless
        // where it must have been.
        if architecture == "baichuan", config["vocab_size"]?.int != 125_696 {
            config["norm_head"] = .bool(false)
        }
        return config
    }

    /// The share of a head that is rotated, where the file says so.
    private static func rotaryShare(
        _ file: GGUFFile, _ architecture: String, _ config: JSONObject
    ) -> JSONValue? {
        guard let rotated = file.metadata["\(architecture).rope.dimension_count"]?.int,
            let heads = config["num_attention_heads"]?.int, heads > 0,
            let size = config["head_dim"]?.int ?? config["hidden_size"]?.int.map({ $0 / heads }),
            size > 0
        else { return nil }
        return .double(Double(rotated) / Double(size))
    }

    private init(
        _ file: GGUFFile, _ architecture: String, _ configuration: ConfigurationReader
    ) {
        self.file = file
        var fileNames: [String: String] = [:]
        for name in file.names { fileNames[Self.huggingFaceName(name)] = name }
        self.fileNames = fileNames
        let heads = configuration.json["num_attention_heads"]?.int
        let kvHeads = configuration.json["num_key_value_heads"]?.int
        var permuted: [String: Int] = [:]
        if architecture == "llama" || architecture == "baichuan" {
            permuted[".self_attn.q_proj."] = heads
            permuted[".self_attn.k_proj."] = kvHeads
        }
        permutedHeads = permuted
    }

    private static let parts = [
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    ]

    private static let whole = [
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    ]

    private static func huggingFaceName(_ name: String) -> String {
        let words = name.split(separator: ".").map(String.init)
        guard let suffix = words.last, words.count > 1 else { return name }
        if words.count == 4, words[0] == "blk", let part = parts[words[2]] {
            return "model.layers.\(words[1]).\(part).\(suffix)"
        }
        if words.count == 2, let part = whole[words[0]] { return "\(part).\(suffix)" }
        return name
    }

    var names: [String] { fileNames.keys.sorted() }
    func contains(_ name: String) -> Bool { fileNames[name] != nil }
    func shape(of name: String) throws -> [Int] { try file.shape(of: fileName(name)) }
    func storage(of name: String) throws -> ElementFormat { try file.storage(of: fileName(name)) }

    func weight(_ name: String) throws -> WeightValue {
        let value = try file.weight(fileName(name))
        for (part, heads) in permutedHeads where name.contains(part) {
            let rows = value.shape[0]
            guard heads > 0, rows % heads == 0, (rows / heads) % 2 == 0 else {
                throw MartletError(
                    .corrupt, "'\(name)' of shape \(value.shape) is not \(heads) heads")
            }
            // The converter turned the halves of a head into pairs; rotary here works on halves.
            let headDim = rows / heads
            let order = (0..<rows).map { row in
                let head = row / headDim, place = row % headDim
                let half = place / (headDim / 2), pair = place % (headDim / 2)
                return head * headDim + 2 * pair + half
            }
            guard case .plain(let bias) = value, value.shape.count == 1 else {
                return try value.selectingRows(order)
            }
            return .plain(try TensorData(order.map { try bias.floats()[$0] }, shape: [rows]))
        }
        return value
    }

    private func fileName(_ name: String) throws -> String {
        guard let found = fileNames[name] else {
            throw MartletError.missingTensor(name)
        }
        return found
    }
}
