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

    /// No text: token ids only.
    init() {}

    /// Reads it from a model's files.
    ///
    /// - Throws: `MartletError` for a tokenizer that cannot be honoured.
    init(_ source: ModelSource) throws {
        chatTemplate = source.chatTemplate
        switch source.tokenizer {
        case .none: break
        case .gguf(let metadata): tokenizer = try Self.gguf(metadata)
        case .json(let bytes, let configuration):
            tokenizer = try TokenizerDescription(
                tokenizerJSON: JSONValue.parse(bytes, name: "tokenizer.json"),
                config: configuration)
        }
        var stops = Set(tokenizer?.stopIDs.map { Int32(clamping: $0) } ?? [])
        if let eos = tokenizer?.eosID { stops.insert(Int32(clamping: eos)) }
        let eos = source.generation?["eos_token_id"] ?? source.configuration.json["eos_token_id"]
        for value in eos?.array ?? [eos].compactMap({ $0 }) {
            if let id = value.int { stops.insert(Int32(clamping: id)) }
        }
        stopTokens = stops.sorted()
    }

    private static func gguf(_ metadata: [String: GGUFValue]) throws -> TokenizerDescription? {
        guard let tokens = metadata["tokenizer.ggml.tokens"]?.array else { return nil }
        func id(_ name: String) -> Int? { metadata["tokenizer.ggml.\(name)_token_id"]?.int }
        return try TokenizerDescription(
            ggufTokens: tokens.map { $0.string ?? "" },
            merges: (metadata["tokenizer.ggml.merges"]?.array ?? []).map { $0.string ?? "" },
            tokenTypes: (metadata["tokenizer.ggml.token_type"]?.array ?? []).map { $0.int ?? 1 },
            model: metadata["tokenizer.ggml.model"]?.string ?? "",
            pre: metadata["tokenizer.ggml.pre"]?.string, bosID: id("bos"), eosID: id("eos"),
            unknownID: id("unknown"), padID: id("padding"),
            addBOS: metadata["tokenizer.ggml.add_bos_token"]?.bool,
            addEOS: metadata["tokenizer.ggml.add_eos_token"]?.bool ?? false,
            chatTemplate: metadata["tokenizer.chat_template"]?.string)
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
        let defaults = JSONValue.object(JSONObject([("stop_token_ids", stops)])).serialized()
        return sections + [section(.generationDefaults, Array(defaults.utf8))]
    }
}
