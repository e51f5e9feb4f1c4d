// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension TokenizerDescription {
    /// Reads `vocab.json` and `merges.txt`, the files of byte-level BPE before `tokenizer.json`.
    ///
    /// - Parameters:
    ///   - vocabulary: Content of `vocab.json`.
    ///   - merges: Content of `merges.txt`.
    ///   - config: `tokenizer_config.json`: the class, which says how text is cut, and as beside
    ///     `tokenizer.json`.
    ///   - modelType: `model_type` of `config.json`, which implies a class where none is named.
    /// - Throws: `unsupported` naming a class that is not known, `corrupt` for wrong fields,
    ///   `limitExceeded` for more than a tokenizer may have.
    package init(
        vocabulary: ByteView, merges: ByteView, config: JSONValue?, modelType: String? = nil
    ) throws {
        let kind = try MergesTokenizerClass(
            config?["tokenizer_class"]?.string, modelType: modelType)
        var config = config?.object ?? JSONObject()
        for role in kind.defaultRoles where config[role] == nil { config[role] = "<|endoftext|>" }
        let value = JSONValue.object(config)
        var reader = TokenizerJSONReader(
            components: kind.components(addsSpace: config["add_prefix_space"]?.bool ?? false))
        try vocabulary.withUnsafeBytes { try reader.readVocabulary(file: $0) }
        try merges.withUnsafeBytes { try reader.readMerges(file: $0) }
        self = try reader.finish(value)
    }
}

/// A class of transformers that reads `vocab.json` and `merges.txt`.
private enum MergesTokenizerClass: String, CaseIterable {
    case gpt2 = "GPT2Tokenizer"
    case qwen2 = "Qwen2Tokenizer"

    private var modelTypes: [String] {
        switch self {
        case .gpt2: ["gpt2", "gpt_neo", "gptj", "phi", "starcoder2"]
        case .qwen2: ["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"]
        }
    }

    /// Special tokens that are `<|endoftext|>` unless the configuration says otherwise.
    var defaultRoles: [String] {
        switch self {
        case .gpt2: ["bos_token", "eos_token", "unk_token"]
        case .qwen2: ["eos_token", "unk_token", "pad_token"]
        }
    }

    init(_ name: String?, modelType: String?) throws {
        let known = Self.allCases.first {
            guard let name else { return $0.modelTypes.contains(modelType ?? "") }
            return name == $0.rawValue || name == $0.rawValue + "Fast"
        }
        guard let known else {
            let what = name.map { "class '\($0)'" } ?? "no class named"
            throw MartletError(
                .unsupported,
                "vocab.json and merges.txt with the tokenizer \(what) are not supported; supported: "
                    + Self.allCases.map(\.rawValue).joined(separator: ", "),
                mend: "Write tokenizer.json with transformers: "
                    + "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
                context: ["key": "tokenizer_class"])
        }
        self = known
    }

    /// What the class does, in the terms of `tokenizer.json`.
    func components(addsSpace: Bool) -> [String: JSONValue] {
        let split = TokenizerComponents.patterns(of: .qwen2).map { pattern -> JSONValue in
            ["type": "Split", "pattern": ["Regex": .string(pattern)], "behavior": "Isolated"]
        }
        let steps = self == .qwen2 ? split : []
        let last: JSONValue = [
            "type": "ByteLevel", "add_prefix_space": .bool(addsSpace),
            "use_regex": .bool(steps.isEmpty),
        ]
        var components: [String: JSONValue] = [
            "pre_tokenizer": ["type": "Sequence", "pretokenizers": .array(steps + [last])],
            "decoder": ["type": "ByteLevel"],
        ]
        if self == .qwen2 { components["normalizer"] = ["type": "NFC"] }
        return components
    }
}
