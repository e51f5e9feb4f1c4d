// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension TokenizerDescription {
    /// Reads the tokenizer that a GGUF file carries in its metadata (`tokenizer.ggml.*`).
    ///
    /// - Parameters:
    ///   - ggufTokens: `tokens`, in the byte alphabet.
    ///   - merges: `merges`, two tokens with a space between.
    ///   - tokenTypes: `token_type` (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6
    ///     byte), or empty.
    ///   - model: `model`; only `gpt2` is byte-level BPE.
    ///   - pre: `pre`, the name of the pre-tokenizer.
    ///   - addBOS: `add_bos_token`; nil takes the default of the pre-tokenizer.
    /// - Throws: `unsupported` naming a model or pre-tokenizer that is not known, `corrupt` for
    ///   merges or ids
    ///   that do not fit the vocabulary.
    package init(
        ggufTokens: [String], merges: [String], tokenTypes: [Int], model: String = "gpt2",
        pre: String?,
        bosID: Int? = nil, eosID: Int? = nil, unknownID: Int? = nil, padID: Int? = nil,
        addBOS: Bool? = nil,
        addEOS: Bool = false, chatTemplate: String? = nil
    ) throws {
        guard model == "gpt2" else {
            throw MartletError(
                .unsupported,
                "tokenizer model '\(model)' is not supported; supported: gpt2 (byte-level BPE)",
                context: ["key": "tokenizer.ggml.model"])
        }
        let rule = try GGUFPreTokenizer(named: pre)
        guard tokenTypes.isEmpty || tokenTypes.count == ggufTokens.count else {
            throw MartletError(
                .corrupt, "\(tokenTypes.count) token types for \(ggufTokens.count) tokens",
                context: ["key": "tokenizer.ggml.token_type"])
        }
        var builder = VocabularyBuilder()
        var added: [AddedToken] = []
        for (id, text) in ggufTokens.enumerated() {
            let type = tokenTypes.isEmpty ? 1 : tokenTypes[id]
            try builder.append(text, isText: type != 1 && type != 6)
            if 2...4 ~= type, !text.isEmpty {
                added.append(AddedToken(id: id, content: text, isSpecial: type != 4))
            }
        }
        try builder.setMerges(merges.count) { rank in
            let merge = merges[rank]
            guard let space = merge.unicodeScalars.dropFirst().firstIndex(of: " ") else {
                throw MartletError(
                    .corrupt, "merge \(rank) (\"\(merge)\") has no space between two tokens",
                    context: ["key": "tokenizer.ggml.merges"])
            }
            let after = merge.unicodeScalars.index(after: space)
            return (String(merge[..<space]), String(merge[after...]))
        }
        self = builder.description
        addedTokens = added
        preTokenizer = rule.kind
        ignoresMerges = rule.ignoresMerges
        self.bosID = bosID
        self.eosID = eosID
        self.unknownID = unknownID
        self.padID = padID
        self.chatTemplate = chatTemplate
        if addBOS ?? rule.addsBOS, let bosID { prefixIDs = [bosID] }
        if addEOS, let eosID { suffixIDs = [eosID] }
        findStops()
        try check()
    }
}

/// What a GGUF pre-tokenizer name implies.
struct GGUFPreTokenizer {
    var kind: PreTokenizerKind
    var ignoresMerges = false
    var addsBOS = false

    private static let names: [(names: String, rule: GGUFPreTokenizer)] = [
        (
            "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt "
                + "olmo jais trillion granite-docling", GGUFPreTokenizer(kind: .gpt2)
        ),
        (
            "smollm starcoder refact command-r codeshell exaone minerva-7b",
            GGUFPreTokenizer(kind: .smollm)
        ),
        (
            "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2",
            GGUFPreTokenizer(kind: .llama3, ignoresMerges: true, addsBOS: true)
        ),
        ("dbrx smaug-bpe", GGUFPreTokenizer(kind: .llama3)),
        (
            "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan",
            GGUFPreTokenizer(kind: .qwen2)
        ),
    ]

    private init(kind: PreTokenizerKind, ignoresMerges: Bool = false, addsBOS: Bool = false) {
        self.kind = kind
        self.ignoresMerges = ignoresMerges
        self.addsBOS = addsBOS
    }

    /// Looks a name up.
    ///
    /// - Throws: `unsupported` with the names that are known.
    init(named name: String?) throws {
        if let name {
            for row in GGUFPreTokenizer.names
            where row.names.split(separator: " ").contains(Substring(name)) {
                self = row.rule
                return
            }
        }
        let known = GGUFPreTokenizer.names.map(\.names).joined(separator: " ")
        throw MartletError(
            .unsupported,
            "pre-tokenizer '\(name ?? "(missing)")' is not supported; supported: \(known)",
            context: ["key": "tokenizer.ggml.pre"])
    }
}
