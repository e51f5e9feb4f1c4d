// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension TokenizerDescription {
    /// Reads the tokenizer that a GGUF file carries in its metadata (`tokenizer.ggml.*`).
    ///
    /// - Parameters:
    ///   - ggufTokens: `tokens`, in the byte alphabet or with `▁` for spaces.
    ///   - merges: `merges`, two tokens with a space between (`gpt2` only).
    ///   - tokenTypes: `token_type` (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6
    ///     byte), or empty.
    ///   - scores: `scores` (`llama` only).
    ///   - model: `model`: `gpt2` is byte-level BPE, `llama` SentencePiece's.
    ///   - pre: `pre`, the name of the pre-tokenizer (`gpt2` only).
    ///   - name: `general.name`: some families take the whitespace after control tokens along.
    ///   - addBOS: `add_bos_token`; nil takes the default of the model or the pre-tokenizer.
    ///   - addSpacePrefix: `add_space_prefix`; nil takes the default of the model.
    /// - Throws: `unsupported` naming a model or pre-tokenizer that is not known, `corrupt` for
    ///   merges or ids that do not fit the vocabulary.
    package init(
        ggufTokens: [String], merges: [String], tokenTypes: [Int], scores: [Float] = [],
        model: String = "gpt2", pre: String?, name: String? = nil, bosID: Int? = nil,
        eosID: Int? = nil, unknownID: Int? = nil, padID: Int? = nil, addBOS: Bool? = nil,
        addEOS: Bool = false, addSpacePrefix: Bool? = nil, chatTemplate: String? = nil
    ) throws {
        guard tokenTypes.isEmpty || tokenTypes.count == ggufTokens.count else {
            throw MartletError(
                .corrupt, "\(tokenTypes.count) token types for \(ggufTokens.count) tokens",
                context: ["key": "tokenizer.ggml.token_type"])
        }
        let kinds = tokenTypes.map { PieceKind(rawValue: $0) ?? .normal }
        let addsBOS: Bool
        switch model {
        case "gpt2":
            let rule = try GGUFPreTokenizer(named: pre)
            self = try Self.byteLevel(ggufTokens, merges, kinds)
            preTokenizer = rule.kind
            ignoresMerges = rule.ignoresMerges
            addsBOS = rule.addsBOS
        case "llama":
            self = try Self.sentencePiece(ggufTokens, scores, kinds)
            spacePrefix = addSpacePrefix ?? true ? .parts : .never
            stripsLeadingSpace = spacePrefix == .parts
            addsBOS = true
            if let name = name?.lowercased(), name.contains("phi-3") || name.contains("phi3") {
                stripSpacesAfterControlTokens()
            }
        default:
            throw MartletError(
                .unsupported,
                "tokenizer model '\(model)' is not supported; supported: gpt2 (byte-level BPE), "
                    + "llama (SentencePiece BPE)", context: ["key": "tokenizer.ggml.model"])
        }
        self.bosID = bosID
        self.eosID = eosID
        self.unknownID = unknownID
        self.padID = padID
        self.chatTemplate = chatTemplate
        if addBOS ?? addsBOS, let bosID { prefixIDs = [bosID] }
        if addEOS, let eosID { suffixIDs = [eosID] }
        findStops()
        try check()
    }

    private static func byteLevel(
        _ tokens: [String], _ merges: [String], _ kinds: [PieceKind]
    ) throws -> TokenizerDescription {
        var builder = VocabularyBuilder()
        var added: [AddedToken] = []
        for (id, text) in tokens.enumerated() {
            let kind = kinds.isEmpty ? .normal : kinds[id]
            try builder.append(text, as: kind == .normal || kind == .byte ? .byteAlphabet : .plain)
            let isAdded = kind == .unknown || kind == .control || kind == .userDefined
            if isAdded, !text.isEmpty {
                added.append(AddedToken(id: id, content: text, isSpecial: kind != .userDefined))
            }
        }
        var reader = builder.mergeReader(count: merges.count)
        for (rank, merge) in merges.enumerated() {
            var merge = merge
            try merge.withUTF8 { text in
                guard let space = text.dropFirst().firstIndex(of: UInt8(ascii: " ")) else {
                    throw MartletError(
                        .corrupt,
                        "merge \(rank) (\"\(String(decoding: text, as: UTF8.self))\") has no space "
                            + "between two tokens", context: ["key": "tokenizer.ggml.merges"])
                }
                try reader.append(
                    UnsafeBufferPointer(rebasing: text[..<space]),
                    UnsafeBufferPointer(rebasing: text[(space + 1)...]))
            }
        }
        var description = builder.description
        description.merges = reader.merges
        description.addedTokens = added
        return description
    }

    private static func sentencePiece(
        _ tokens: [String], _ scores: [Float], _ kinds: [PieceKind]
    ) throws -> TokenizerDescription {
        guard scores.count == tokens.count else {
            throw MartletError(
                .corrupt, "\(scores.count) scores for \(tokens.count) tokens",
                context: ["key": "tokenizer.ggml.scores"])
        }
        var builder = VocabularyBuilder()
        builder.description.model = .sentencePiece
        var added: [AddedToken] = []
        var kept = scores
        for (id, text) in tokens.enumerated() {
            let kind = kinds.isEmpty ? .normal : kinds[id]
            switch kind {
            case .normal: try builder.append(text, as: .sentencePiece)
            case .byte: try builder.append(text, as: .byte)
            default: try builder.append(text, as: .plain)
            }
            if kind != .normal, kind != .byte {
                kept[id] = 0
                if kind != .unused, !text.isEmpty {
                    added.append(AddedToken(id: id, content: text, isSpecial: kind != .userDefined))
                }
            }
        }
        try builder.keepByteTokens()
        var description = builder.description
        description.preTokenizer = .whole
        description.scores = kept
        description.addedTokens = added
        return description
    }

    /// Phi-3's control tokens take the whitespace after them along, its oldest ones do not.
    private mutating func stripSpacesAfterControlTokens() {
        for index in addedTokens.indices {
            let isOld = ["<unk>", "<s>", "<|endoftext|>"].contains(addedTokens[index].content)
            addedTokens[index].stripsRight = !isOld
        }
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
        ("deepseek-llm", GGUFPreTokenizer(kind: .deepSeekLLM)),
        ("deepseek-coder", GGUFPreTokenizer(kind: .deepSeekCoder)),
        ("deepseek-v3 hunyuan-dense joyai-llm", GGUFPreTokenizer(kind: .deepSeekV3)),
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
