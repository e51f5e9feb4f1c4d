// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension TokenizerDescription {
    /// Reads `tokenizer.json` of Hugging Face tokenizers.
    ///
    /// - Parameters:
    ///   - tokenizerJSON: The file's content.
    ///   - config: `tokenizer_config.json`: names of the special tokens, chat template.
    /// - Throws: `unsupported` naming a component that is not known, `corrupt` for missing or wrong
    ///   fields.
    package init(tokenizerJSON json: JSONValue, config: JSONValue? = nil) throws {
        let reader = TokenizerJSONReader(root: json)
        self = try reader.vocabulary()
        try reader.normalizer()
        try reader.preTokenizer(into: &self)
        try reader.postProcessor(into: &self)
        try reader.decoder()
        for (key, path) in [
            ("bos_token", \TokenizerDescription.bosID), ("eos_token", \.eosID),
            ("unk_token", \.unknownID),
            ("pad_token", \.padID),
        ] {
            let name = config?[key]?.string ?? config?[key]?["content"]?.string
            if let name { self[keyPath: path] = addedTokens.first { $0.content == name }?.id }
        }
        chatTemplate = config?["chat_template"]?.string
        if let bosID, config?["add_bos_token"]?.bool == true, !prefixIDs.contains(bosID) {
            prefixIDs.insert(bosID, at: 0)
        }
        if let eosID, config?["add_eos_token"]?.bool == true, !suffixIDs.contains(eosID) {
            suffixIDs.append(eosID)
        }
        findStops()
        try check()
    }
}

/// Reads the components of a `tokenizer.json`.
struct TokenizerJSONReader {
    let root: JSONValue

    func unsupported(_ component: String, _ name: String) -> MartletError {
        MartletError(
            .unsupported, "tokenizer.json: \(component) '\(name)' is not supported",
            context: ["key": component])
    }

    func corrupt(_ what: String) -> MartletError {
        MartletError(.corrupt, "tokenizer.json: \(what)")
    }

    private func isSet(_ value: JSONValue?) -> Bool {
        guard let value, !value.isNull else { return false }
        return value.string != ""
    }

    /// Vocabulary, merges and added tokens.
    func vocabulary() throws -> TokenizerDescription {
        guard let model = root["model"] else { throw corrupt("no 'model'") }
        let type = model["type"]?.string ?? "BPE"
        guard type == "BPE" else { throw unsupported("model", type) }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] where isSet(model[key]) {
            throw unsupported("model.\(key)", model[key]?.string ?? "?")
        }
        if model["byte_fallback"]?.bool == true { throw unsupported("model.byte_fallback", "true") }
        if let dropout = model["dropout"]?.double, dropout != 0 {
            throw unsupported("model.dropout", "\(dropout)")
        }
        guard let entries = model["vocab"]?.object?.members else {
            throw corrupt("no 'model.vocab'")
        }
        let added = try addedTokens()
        let limit = entries.count + added.count
        var texts = [String?](repeating: nil, count: limit)
        var isText = [Bool](repeating: false, count: limit)
        func place(_ text: String, _ id: Int?, isAdded: Bool) throws {
            guard let id, id >= 0, id < limit * 2 + 1024 else {
                throw corrupt("id \(id ?? -1) of token '\(text)' is beyond \(limit) tokens")
            }
            while texts.count <= id {
                texts.append(nil)
                isText.append(false)
            }
            texts[id] = text
            isText[id] = isAdded
        }
        for entry in entries { try place(entry.key, entry.value.int, isAdded: false) }
        for token in added { try place(token.content, token.id, isAdded: true) }
        while let last = texts.last, last == nil { texts.removeLast() }
        var builder = VocabularyBuilder()
        for (id, text) in texts.enumerated() { try builder.append(text ?? "", isText: isText[id]) }
        guard let merges = model["merges"]?.array else { throw corrupt("no 'model.merges'") }
        try builder.setMerges(merges.count) { rank in
            if let left = merges[rank][0]?.string, let right = merges[rank][1]?.string {
                return (left, right)
            }
            let parts = (merges[rank].string ?? "").unicodeScalars.split(
                separator: " ", omittingEmptySubsequences: false)
            guard parts.count == 2 else { throw corrupt("merge \(rank) is no pair of tokens") }
            return (String(parts[0]), String(parts[1]))
        }
        var description = builder.description
        description.addedTokens = added
        description.ignoresMerges = model["ignore_merges"]?.bool ?? false
        return description
    }

    private func addedTokens() throws -> [AddedToken] {
        try (root["added_tokens"]?.array ?? []).map { entry in
            guard let id = entry["id"]?.int, let content = entry["content"]?.string,
                !content.isEmpty
            else {
                throw corrupt("an added token without id or content")
            }
            return AddedToken(
                id: id, content: content, isSpecial: entry["special"]?.bool ?? false,
                singleWord: entry["single_word"]?.bool ?? false,
                stripsLeft: entry["lstrip"]?.bool ?? false,
                stripsRight: entry["rstrip"]?.bool ?? false,
                isNormalized: entry["normalized"]?.bool ?? false)
        }
    }

    func normalizer() throws {
        guard let normalizer = root["normalizer"], !normalizer.isNull else { return }
        if normalizer["type"]?.string == "Sequence",
            normalizer["normalizers"]?.array?.isEmpty == true
        {
            return
        }
        throw unsupported("normalizer", normalizer["type"]?.string ?? "?")
    }

    /// The steps of a component that may be a sequence.
    private func steps(_ key: String, _ list: String) -> [JSONValue] {
        guard let value = root[key], !value.isNull else { return [] }
        if value["type"]?.string == "Sequence" { return value[list]?.array ?? [] }
        return [value]
    }

    func decoder() throws {
        for step in steps("decoder", "decoders") where step["type"]?.string != "ByteLevel" {
            throw unsupported("decoder", step["type"]?.string ?? "?")
        }
    }
}
