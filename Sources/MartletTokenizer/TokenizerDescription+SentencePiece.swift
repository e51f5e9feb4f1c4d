// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Kinds of pieces, numbered as in SentencePiece's files and in GGUF.
enum PieceKind: Int {
    case normal = 1
    case unknown, control, userDefined, unused, byte
}

extension TokenizerDescription {
    /// Reads SentencePiece's `tokenizer.model` (a protocol buffer) of the kind BPE.
    ///
    /// - Parameters:
    ///   - sentencePiece: The file's content.
    ///   - config: `tokenizer_config.json`: added tokens, names of the special tokens, `legacy`, chat
    ///     template.
    /// - Throws: `unsupported` naming a setting that is not known, `corrupt` for damaged fields.
    package init(sentencePiece bytes: ByteView, config: JSONValue? = nil) throws {
        self.init()
        var file = SentencePieceFile()
        try bytes.withUnsafeBytes { try file.read($0) }
        try file.addTokens(AddedToken.entries(config))
        self = try file.vocabulary()
        if file.addsDummyPrefix {
            // Early code put the space before every part between control tokens.
            spacePrefix = config?["legacy"]?.bool ?? true ? .parts : .start
        }
        if let bosID, config?["add_bos_token"]?.bool ?? true { prefixIDs = [bosID] }
        apply(config: config)
        findStops()
        try check()
    }
}

/// The fields of a SentencePiece file that decide how text is cut.
struct SentencePieceFile {
    private var builder = VocabularyBuilder()
    private var added: [AddedToken] = []
    private var scores: [Float] = []
    private var modelType = 1
    private var ids: [Int: Int] = [:]
    private var dropsExtraSpaces = true
    private(set) var addsDummyPrefix = true

    init() { builder.description.model = .sentencePiece }

    private func unsupported(_ key: String, _ value: String) -> MartletError {
        MartletError(
            .unsupported, "tokenizer.model: \(key) '\(value)' is not supported",
            mend: "Use a model with tokenizer.json or a .gguf file", context: ["key": key])
    }

    mutating func read(_ bytes: UnsafeRawBufferPointer) throws {
        var reader = ProtobufReader(bytes, name: "tokenizer.model")
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let piece)): try readPiece(reader.inside(piece))
            case (2, .bytes(let trainer)): try readTrainer(reader.inside(trainer))
            case (3, .bytes(let normalizer)): try readNormalizer(reader.inside(normalizer))
            default: break
            }
        }
    }

    private mutating func readPiece(_ fields: ProtobufReader) throws {
        var reader = fields
        var text = UnsafeRawBufferPointer(start: nil, count: 0)
        var score: Float = 0
        var kind = PieceKind.normal
        let id = scores.count
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (1, .bytes(let bytes)): text = bytes
            case (2, .fixed32(let bits)): score = Float(bitPattern: bits)
            case (3, .integer(let number)):
                guard let known = Int(exactly: number).flatMap({ PieceKind(rawValue: $0) }) else {
                    throw reader.failure("piece \(id) is of the unknown kind \(number)")
                }
                kind = known
            default: break
            }
        }
        guard kind != .unused else { throw unsupported("pieces[\(id)].type", "UNUSED") }
        guard score.isFinite else { throw reader.failure("the score of piece \(id) is no number") }
        guard let piece = String(validating: text, as: UTF8.self) else {
            throw reader.failure("piece \(id) is no UTF-8")
        }
        guard !piece.isEmpty else { throw reader.failure("piece \(id) is empty") }
        try append(piece, kind, score)
    }

    /// Adds the next piece.
    mutating func append(_ piece: String, _ kind: PieceKind, _ score: Float) throws {
        let id = scores.count
        switch kind {
        case .normal: try builder.append(piece, as: .sentencePiece)
        case .byte: try builder.append(piece, as: .byte)
        case .unused: try builder.append(piece, as: .plain)
        case .unknown, .control:
            try builder.append(piece, as: .plain)
            added.append(AddedToken(id: id, content: piece, isSpecial: true))
        case .userDefined:
            try builder.append(piece, as: .sentencePiece)
            // A symbol with a space in it is never found, as in SentencePiece: spaces are marks there.
            // Others are whole symbols of the normalized text: no space is put around them.
            if !piece.contains(" ") {
                added.append(
                    AddedToken(
                        id: id, content: piece, isSpecial: false, isNormalized: true,
                        pattern: SpaceMark.unmarked(piece)))
            }
        }
        scores.append(kind == .normal || kind == .userDefined ? score : 0)
    }

    private mutating func readTrainer(_ fields: ProtobufReader) throws {
        var reader = fields
        while let field = try reader.next() {
            guard case .integer(let number) = field.value else { continue }
            switch field.number {
            case 3: modelType = Int(truncatingIfNeeded: number)
            case 24 where number != 0: throw unsupported("treat_whitespace_as_suffix", "true")
            case 40...43:
                ids[field.number] = Int(Int64(bitPattern: number))
            default: break
            }
        }
    }

    private mutating func readNormalizer(_ fields: ProtobufReader) throws {
        var reader = fields
        while let field = try reader.next() {
            switch (field.number, field.value) {
            case (2, .bytes(let map)) where !map.isEmpty:
                throw unsupported("precompiled_charsmap", "\(map.count) bytes")
            case (3, .integer(let number)): addsDummyPrefix = number != 0
            case (4, .integer(let number)): dropsExtraSpaces = number != 0
            case (5, .integer(0)): throw unsupported("escape_whitespaces", "false")
            default: break
            }
        }
    }

    /// Takes tokens in that were added to the file's pieces: by id, their texts and how they are found.
    ///
    /// - Throws: `corrupt` for ids that leave more than 1,024 others out.
    mutating func addTokens(_ entries: [AddedToken]) throws {
        for var token in entries {
            func failure(_ what: String) -> MartletError {
                MartletError(
                    .corrupt, "tokenizer_config.json: added token \(token.id) \(what)",
                    context: ["key": "added_tokens_decoder.\(token.id)"])
            }
            guard !token.content.isEmpty else { throw failure("has no content") }
            guard token.id <= scores.count + 1024 else {
                throw failure("comes after \(scores.count) tokens")
            }
            while scores.count < token.id { try append("", .unused, 0) }
            if token.id == scores.count { try append(token.content, .unused, 0) }
            added.removeAll { $0.id == token.id }
            token.isNormalized = false
            added.append(token)
        }
    }

    /// What was read, once it is whole.
    func vocabulary() throws -> TokenizerDescription {
        guard modelType == 2 else {
            let names = [1: "UNIGRAM", 3: "WORD", 4: "CHAR"]
            throw unsupported("model_type", names[modelType] ?? "\(modelType)")
        }
        var builder = builder
        try builder.keepByteTokens()
        var description = builder.description
        description.preTokenizer = .whole
        description.scores = scores
        description.addedTokens = added
        description.fusesUnknown = true
        description.dropsExtraSpaces = dropsExtraSpaces
        description.stripsLeadingSpace = addsDummyPrefix
        func id(_ key: Int, _ fallback: Int) throws -> Int? {
            // A negative id says that there is no such token.
            let id = ids[key] ?? fallback
            if id < 0 { return nil }
            guard id < scores.count else {
                throw MartletError(
                    .corrupt,
                    "tokenizer.model: a special token has the id \(id), the vocabulary "
                        + "has \(scores.count) pieces", context: ["key": "trainer_spec.\(key)"])
            }
            let isControl = added.contains { $0.id == id && $0.isSpecial }
            return isControl ? id : nil
        }
        description.unknownID = try id(40, 0)
        description.bosID = try id(41, 1)
        description.eosID = try id(42, 2)
        description.padID = try id(43, -1)
        return description
    }
}

/// Reads the fields of a protocol buffer and never looks beyond the end.
struct ProtobufReader {
    enum Value {
        case integer(UInt64)
        case fixed32(UInt32)
        case fixed64
        case bytes(UnsafeRawBufferPointer)
    }

    private let bytes: UnsafeRawBufferPointer
    private let name: String
    private let origin: Int
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer, name: String) {
        self.init(bytes, name: name, origin: 0)
    }

    private init(_ bytes: UnsafeRawBufferPointer, name: String, origin: Int) {
        self.bytes = bytes
        self.name = name
        self.origin = origin
    }

    /// A reader of the message inside the field read last.
    func inside(_ bytes: UnsafeRawBufferPointer) -> ProtobufReader {
        ProtobufReader(bytes, name: name, origin: origin + position - bytes.count)
    }

    func failure(_ what: String) -> MartletError {
        MartletError(
            .corrupt, "\(name): \(what) at byte \(origin + position)",
            context: ["offset": "\(origin + position)"])
    }

    /// The next field; nil at the end.
    mutating func next() throws -> (number: Int, value: Value)? {
        guard position < bytes.count else { return nil }
        let tag = try varint()
        guard let number = Int(exactly: tag >> 3), number > 0, number < 1 << 29 else {
            throw failure("a field with the number \(tag >> 3)")
        }
        switch tag & 7 {
        case 0: return (number, .integer(try varint()))
        case 1:
            _ = try take(8)
            return (number, .fixed64)
        case 2:
            let length = try varint()
            guard let count = Int(exactly: length) else {
                throw failure("a field of \(length) bytes")
            }
            return (number, .bytes(try take(count)))
        case 5:
            let word = try take(4).loadUnaligned(as: UInt32.self)
            return (number, .fixed32(UInt32(littleEndian: word)))
        case let type: throw failure("field \(number) of the unknown wire type \(type)")
        }
    }

    private mutating func take(_ count: Int) throws -> UnsafeRawBufferPointer {
        guard count <= bytes.count - position else {
            throw failure("a field of \(count) bytes where \(bytes.count - position) are left")
        }
        defer { position += count }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])
    }

    private mutating func varint() throws -> UInt64 {
        var result: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 7) {
            guard position < bytes.count else { throw failure("the file ends early") }
            let byte = bytes[position]
            position += 1
            result |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 { return result }
        }
        throw failure("a number of more than 64 bits")
    }
}
