// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEngineFile
import MartletFormats
import MartletTokenizer

/// What an engine needs to know of text: tokenizer, chat template, tokens that end answers.
struct TextDescription {
    var tokenizer: TokenizerDescription?
    var chatTemplate: String?
    var stopTokens: [Int32] = []
    /// Tokens before the turns of a chat, where the model has them in place of a template.
    var roleTokens: RoleTokens?

    /// No text: token ids only.
    init() {}

    /// Reads it from a model's files.
    ///
    /// - Throws: `MartletError` for a tokenizer that cannot be honoured.
    init(_ source: ModelSource) throws {
        chatTemplate = source.chatTemplate
        do {
            tokenizer = try Self.tokenizer(source.tokenizer)
        } catch let error as MartletError {
            throw error.mending(
                "Fetch the model's tokenizer files again, or use a .gguf file of the model")
        }
        if chatTemplate == nil { roleTokens = Self.roleTokens(source) }
        var stops = Set(tokenizer?.stopIDs.map { Int32(clamping: $0) } ?? [])
        if let eos = tokenizer?.eosID { stops.insert(Int32(clamping: eos)) }
        let generated = source.generation?["eos_token_id"]
        let eos = generated ?? source.configuration.json["eos_token_id"]
        let vocabularySize = source.configuration.json["vocab_size"]?.int ?? Int(Int32.max)
        for value in eos?.array ?? [eos].compactMap({ $0 }) where value != .null {
            guard let id = value.int, (0..<min(vocabularySize, Int(Int32.max))).contains(id) else {
                let file = generated == nil ? "config.json" : "generation_config.json"
                throw MartletError(
                    .corrupt,
                    "\(file): 'eos_token_id' is \(value.serialized()), but must be 0 to "
                        + "\(vocabularySize - 1)", mend: "Correct it in \(file)")
            }
            stops.insert(Int32(id))
        }
        stopTokens = stops.sorted()
    }

    private static func tokenizer(
        _ files: ModelSource.TokenizerFiles
    ) throws -> TokenizerDescription? {
        switch files {
        case .none: nil
        case .gguf(let metadata): try TokenizerDescription(gguf: metadata)
        case .json(let bytes, let configuration):
            try TokenizerDescription(tokenizerJSON: bytes, config: configuration)
        case .sentencePiece(let bytes, let configuration):
            try TokenizerDescription(sentencePiece: bytes, config: configuration)
        case .merges(let vocabulary, let merges, let configuration, let modelType):
            try TokenizerDescription(
                vocabulary: vocabulary, merges: merges, config: configuration, modelType: modelType)
        }
    }

    /// Baichuan's chat models: their `generation_config.json` names the tokens, GGUF files do not.
    private static func roleTokens(_ source: ModelSource) -> RoleTokens? {
        let isBaichuan = source.architectures.contains { $0.lowercased() == "baichuanforcausallm" }
        let isChat = source.displayName.lowercased().contains("chat")
        return RoleTokens(generation: source.generation)
            ?? (isBaichuan && isChat ? RoleTokens(user: 195, assistant: 196) : nil)
    }

    /// Reads it from an engine file.
    init(_ engine: EngineFileReader) throws {
        if let bytes = engine.section(.tokenizer) {
            tokenizer = try TokenizerDescription(serialized: bytes)
        }
        chatTemplate = try engine.text(.chatTemplate)
        if let bytes = engine.section(.generationDefaults) {
            let json = try JSONValue.parse(bytes, name: "generation defaults")
            stopTokens = (json["stop_token_ids"]?.array ?? []).compactMap {
                $0.int.map(Int32.init(clamping:))
            }
            roleTokens = RoleTokens(generation: json)
        }
    }

    /// What engine files hold of it.
    func sections() -> [SharedSection] {
        func section(_ kind: SectionKind, _ bytes: [UInt8]) -> SharedSection {
            SharedSection(key: SectionKey(kind), isRequired: true, bytes: ByteView(bytes))
        }
        var sections: [SharedSection] = []
        if let tokenizer { sections.append(section(.tokenizer, tokenizer.serialized())) }
        if let chatTemplate { sections.append(section(.chatTemplate, Array(chatTemplate.utf8))) }
        let stops = JSONValue.array(stopTokens.map { .int(Int($0)) })
        var defaults = JSONObject([("stop_token_ids", stops)])
        if let roleTokens {
            defaults["user_token_id"] = .int(roleTokens.user)
            defaults["assistant_token_id"] = .int(roleTokens.assistant)
        }
        let json = JSONValue.object(defaults).serialized()
        return sections + [section(.generationDefaults, Array(json.utf8))]
    }
}

extension GGUFValue: GGUFMetadataValue {}
