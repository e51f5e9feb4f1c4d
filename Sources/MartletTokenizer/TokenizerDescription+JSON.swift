// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension TokenizerDescription {
    /// Reads `tokenizer.json` of Hugging Face tokenizers.
    ///
    /// The tables are read as they stand in the file: memory stays near the vocabulary's own size.
    ///
    /// - Parameters:
    ///   - tokenizerJSON: The file's content.
    ///   - config: `tokenizer_config.json`: added tokens, names of the special tokens, chat template.
    /// - Throws: `unsupported` naming a component that is not known, `corrupt` for missing or wrong
    ///   fields, `limitExceeded` for more than a tokenizer may have.
    package init(tokenizerJSON bytes: ByteView, config: JSONValue? = nil) throws {
        var reader = TokenizerJSONReader()
        try bytes.withUnsafeBytes { try reader.read($0) }
        self = try reader.finish(config)
    }

    /// Takes over what `tokenizer_config.json` says: special tokens by name, chat template.
    mutating func apply(config: JSONValue?) {
        guard let config else { return }
        for (key, path) in [
            ("bos_token", \TokenizerDescription.bosID), ("eos_token", \.eosID),
            ("unk_token", \.unknownID), ("pad_token", \.padID),
        ] {
            let name = config[key]?.string ?? config[key]?["content"]?.string
            guard let name, let id = addedTokens.first(where: { $0.content == name })?.id else {
                continue
            }
            self[keyPath: path] = id
        }
        chatTemplate = config["chat_template"]?.string ?? chatTemplate
        if let bosID, let adds = config["add_bos_token"]?.bool {
            if adds, !prefixIDs.contains(bosID) { prefixIDs.insert(bosID, at: 0) }
        }
        if let eosID, config["add_eos_token"]?.bool == true, !suffixIDs.contains(eosID) {
            suffixIDs.append(eosID)
        }
    }
}

/// Reads a `tokenizer.json` in one walk: small components as values, the tables entry by entry.
///
/// `vocab.json` and `merges.txt` are the same tables in files of their own.
struct TokenizerJSONReader {
    /// Most bytes of a component, and of an added token.
    private static let componentLimit = 1 << 20
    private static let addedTokenLimit = 1 << 16
    private static let addedTokenCountLimit = 1 << 16

    /// Files of the tables, for errors.
    private var vocabularyFile = "tokenizer.json"
    private var mergesFile = "tokenizer.json"
    private var description = TokenizerDescription()
    private var components: [String: JSONValue] = [:]
    private var hasModel = false
    /// Vocabulary in the order of the file: ids, and where each token's text ends.
    private(set) var ids: [Int32] = []
    private(set) var ends: [UInt32] = []
    private(set) var texts: [UInt8] = []
    /// Merges in the order of the file: where each half ends.
    private var mergeEnds: [UInt32] = []
    private var mergeTexts: [UInt8] = []
    var added: [AddedToken] = []

    init() {}

    /// A reader of `vocab.json` and `merges.txt`, with what a `tokenizer.json` says of all else.
    init(components: [String: JSONValue]) {
        vocabularyFile = "vocab.json"
        mergesFile = "merges.txt"
        self.components = components
    }

    static func unsupported(_ component: String, _ name: String) -> MartletError {
        MartletError(
            .unsupported, "tokenizer.json: \(component) '\(name)' is not supported",
            context: ["key": component])
    }

    static func corrupt(_ what: String, key: String) -> MartletError {
        MartletError(.corrupt, "tokenizer.json: \(what)", context: ["key": key])
    }

    private func vocabularyFailure(_ what: String) -> MartletError {
        MartletError(
            .corrupt, "\(vocabularyFile): \(what)", context: ["key": "model.vocab"])
    }

    mutating func read(_ bytes: UnsafeRawBufferPointer) throws {
        var cursor = JSONCursor(bytes, name: "tokenizer.json")
        try cursor.members { cursor, key in
            switch String(decoding: key, as: UTF8.self) {
            case "model": try readModel(&cursor)
            case "added_tokens": try readAddedTokens(&cursor)
            case let key
            where ["normalizer", "pre_tokenizer", "post_processor", "decoder"]
                .contains(key):
                components[key] = try cursor.value(limit: Self.componentLimit)
            default: try cursor.skip()
            }
        }
        try cursor.expectEnd()
        guard hasModel else { throw Self.corrupt("no 'model'", key: "model") }
    }

    /// Reads a `vocab.json`.
    mutating func readVocabulary(file bytes: UnsafeRawBufferPointer) throws {
        var cursor = JSONCursor(bytes, name: "vocab.json")
        try readVocabulary(&cursor)
        try cursor.expectEnd()
    }

    /// Reads a `merges.txt`: a merge on each line, but for one that says the version.
    mutating func readMerges(file bytes: UnsafeRawBufferPointer) throws {
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        for line in lines where !line.starts(with: "#version".utf8) {
            let merge = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
            let halves = merge.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            try append(halves)
        }
    }

    /// Appends a merge of two halves.
    private mutating func append(_ halves: [some Collection<UInt8>]) throws {
        let rank = mergeEnds.count / 2
        guard rank < VocabularyBuilder.mergeLimit,
            mergeTexts.count + halves.reduce(0, { $0 + $1.count })
                <= 2 * VocabularyBuilder.textLimit
        else {
            throw MartletError(
                .limitExceeded,
                "\(mergesFile): more than \(VocabularyBuilder.mergeLimit) merges or "
                    + "\(2 * VocabularyBuilder.textLimit) bytes of them, the limits",
                context: ["key": "model.merges"])
        }
        guard halves.count == 2 else {
            throw MartletError(
                .corrupt, "\(mergesFile): merge \(rank) is no pair of tokens",
                context: ["key": "model.merges"])
        }
        for half in halves {
            mergeTexts.append(contentsOf: half)
            mergeEnds.append(UInt32(truncatingIfNeeded: mergeTexts.count))
        }
    }

    /// The description, once all tables are read, with what the files beside it say.
    mutating func finish(_ config: JSONValue?) throws -> TokenizerDescription {
        try addTokens(config)
        try build()
        var description = description
        findPatterns(&description)
        description.apply(config: config)
        description.findStops()
        try description.check()
        return description
    }

    private mutating func readModel(_ cursor: inout JSONCursor) throws {
        hasModel = true
        var hasVocabulary = false
        var hasMerges = false
        var fields = JSONObject()
        try cursor.members { cursor, key in
            switch String(decoding: key, as: UTF8.self) {
            case "vocab":
                hasVocabulary = true
                // A list of pieces with scores belongs to another kind of model, named below.
                if cursor.peek() == UInt8(ascii: "[") { return try cursor.skip() }
                try readVocabulary(&cursor)
            case "merges":
                hasMerges = true
                try readMerges(&cursor)
            case let key: fields[key] = try cursor.value(limit: Self.componentLimit)
            }
        }
        let type = fields["type"]?.string ?? "BPE"
        guard type == "BPE" else { throw Self.unsupported("model", type) }
        guard hasVocabulary else { throw Self.corrupt("no 'model.vocab'", key: "model.vocab") }
        guard hasMerges else { throw Self.corrupt("no 'model.merges'", key: "model.merges") }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if let text = fields[key]?.string, !text.isEmpty {
                throw Self.unsupported("model.\(key)", text)
            }
        }
        if let dropout = fields["dropout"]?.double, dropout != 0 {
            throw Self.unsupported("model.dropout", "\(dropout)")
        }
        description.ignoresMerges = fields["ignore_merges"]?.bool ?? false
        description.fusesUnknown = fields["fuse_unk"]?.bool ?? false
        components["byte_fallback"] = fields["byte_fallback"]
        components["unk_token"] = fields["unk_token"]
    }

    private mutating func readVocabulary(_ cursor: inout JSONCursor) throws {
        try cursor.members { cursor, text in
            let id = try cursor.integer()
            guard id >= 0, id < VocabularyBuilder.tokenLimit else {
                throw vocabularyFailure(
                    "id \(id) of token '\(String(decoding: text.prefix(64), as: UTF8.self))' is "
                        + "not from 0 to \(VocabularyBuilder.tokenLimit - 1)")
            }
            guard ids.count < VocabularyBuilder.tokenLimit,
                texts.count + text.count <= VocabularyBuilder.textLimit
            else {
                throw MartletError(
                    .limitExceeded,
                    "\(vocabularyFile): the vocabulary has more than \(VocabularyBuilder.tokenLimit) "
                        + "tokens or \(VocabularyBuilder.textLimit) bytes, the limits",
                    context: ["key": "model.vocab"])
            }
            texts.append(contentsOf: text)
            ends.append(UInt32(truncatingIfNeeded: texts.count))
            ids.append(Int32(truncatingIfNeeded: id))
        }
    }

    /// Merges are kept as text: the file may name them before the vocabulary.
    private mutating func readMerges(_ cursor: inout JSONCursor) throws {
        var text: [UInt8] = []
        var halves: [ArraySlice<UInt8>] = []
        try cursor.elements { cursor in
            halves.removeAll(keepingCapacity: true)
            if cursor.peek() == UInt8(ascii: "[") {
                try cursor.elements { cursor in
                    try cursor.string(into: &text)
                    // A third one is enough to know that it is no pair.
                    if halves.count < 3 { halves.append(text[...]) }
                }
            } else {
                try cursor.string(into: &text)
                halves = text.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            }
            try append(halves)
        }
    }

    private mutating func readAddedTokens(_ cursor: inout JSONCursor) throws {
        if cursor.peek() == UInt8(ascii: "n") { return try cursor.skip() }
        try cursor.elements { cursor in
            let entry = try cursor.value(limit: Self.addedTokenLimit)
            guard let id = entry["id"]?.int, let content = entry["content"]?.string,
                !content.isEmpty
            else { throw Self.corrupt("an added token without id or content", key: "added_tokens") }
            guard id >= 0, id < VocabularyBuilder.tokenLimit else {
                throw Self.corrupt(
                    "id \(id) of added token '\(content)' is not from 0 to "
                        + "\(VocabularyBuilder.tokenLimit - 1)", key: "added_tokens")
            }
            try append(
                AddedToken(
                    id: id, content: content, isSpecial: entry["special"]?.bool ?? false,
                    singleWord: entry["single_word"]?.bool ?? false,
                    stripsLeft: entry["lstrip"]?.bool ?? false,
                    stripsRight: entry["rstrip"]?.bool ?? false,
                    isNormalized: entry["normalized"]?.bool ?? false))
        }
    }

    /// Appends an added token.
    mutating func append(_ token: AddedToken) throws {
        guard added.count < Self.addedTokenCountLimit else {
            throw MartletError(
                .limitExceeded,
                "tokenizer.json: more than \(Self.addedTokenCountLimit) added tokens, the limit",
                context: ["key": "added_tokens"])
        }
        added.append(token)
    }

    /// Puts the tables in order of id, once all components are known.
    private mutating func build() throws {
        let components = TokenizerComponents(components)
        try components.apply(to: &description)
        var order = [Int32](repeating: -1, count: Int(ids.max().map { $0 + 1 } ?? 0))
        for (index, id) in ids.enumerated() {
            guard order[Int(id)] < 0 else {
                throw vocabularyFailure("two tokens have the id \(id)")
            }
            order[Int(id)] = Int32(truncatingIfNeeded: index)
        }
        let addedByID = Dictionary(added.map { ($0.id, $0) }, uniquingKeysWith: { _, last in last })
        let count = max(order.count, (addedByID.keys.max() ?? -1) + 1)
        guard count <= 2 * (ids.count + added.count) + 1024 else {
            throw vocabularyFailure(
                "the greatest id is \(count - 1), but there are \(ids.count + added.count) tokens")
        }
        var builder = VocabularyBuilder()
        builder.description = description
        let form: VocabularyBuilder.Form =
            description.model == .sentencePiece ? .sentencePiece : .byteAlphabet
        for id in 0..<count {
            if let token = addedByID[id] {
                try builder.append(token.content, as: .plain)
            } else if id < order.count, order[id] >= 0 {
                let index = Int(order[id])
                try texts.withUnsafeBufferPointer { all in
                    let start = index == 0 ? 0 : Int(ends[index - 1])
                    let text = UnsafeBufferPointer(rebasing: all[start..<Int(ends[index])])
                    let isByte = components.fallsBackToBytes && VocabularyBuilder.byte(text) != nil
                    try builder.append(text, as: isByte ? .byte : form)
                }
            } else {
                try builder.append("", as: .plain)
            }
        }
        if components.fallsBackToBytes { try builder.keepByteTokens() }
        texts = []
        var merges = builder.mergeReader(count: mergeEnds.count / 2)
        try mergeTexts.withUnsafeBufferPointer { all in
            var start = 0
            for pair in 0..<mergeEnds.count / 2 {
                let (middle, end) = (Int(mergeEnds[pair * 2]), Int(mergeEnds[pair * 2 + 1]))
                try merges.append(
                    UnsafeBufferPointer(rebasing: all[start..<middle]),
                    UnsafeBufferPointer(rebasing: all[middle..<end]))
                start = end
            }
        }
        description = builder.description
        description.merges = merges.merges
        description.addedTokens = added
        if let name = components.unknownToken, description.model == .sentencePiece {
            description.unknownID = added.first { $0.content == name }?.id
        }
    }

    /// Looks for added tokens of the second round as they stand in normalized text.
    func findPatterns(_ description: inout TokenizerDescription) {
        let normalizer = TextNormalizer(description)
        for index in description.addedTokens.indices
        where description.addedTokens[index].isNormalized {
            var content = description.addedTokens[index].content
            let pattern = content.withUTF8 { text in
                text.baseAddress.flatMap {
                    normalizer.normalized(
                        $0, 0, text.count, [], addsSpace: description.spacePrefix == .parts)
                }
            }
            if let pattern {
                description.addedTokens[index].pattern = String(
                    decoding: pattern.bytes, as: UTF8.self)
                // It is read back as it stood there, as the package `tokenizers` does.
                description.setBytes(of: description.addedTokens[index].id, to: pattern.bytes)
            }
        }
    }
}
