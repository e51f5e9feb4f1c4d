// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Collects tokens and merges into a description.
struct VocabularyBuilder {
    /// How a file writes a token.
    enum Form {
        /// As the text it stands for (control and added tokens).
        case plain
        /// In GPT-2's byte alphabet.
        case byteAlphabet
        /// With `▁` for a space.
        case sentencePiece
        /// `<0xNN>`: one byte.
        case byte
    }

    /// Most tokens a vocabulary may have.
    static let tokenLimit = 1 << 20
    /// Most merges.
    static let mergeLimit = 1 << 20
    /// Most bytes of all tokens together.
    static let textLimit = 64 << 20

    var description = TokenizerDescription()
    private var byteIDs = [UInt32](repeating: .max, count: 256)
    /// Tokens that merges may name first; others have the same bytes by chance.
    private var isMerged: [Bool] = []

    /// Appends the next token.
    mutating func append(_ text: UnsafeBufferPointer<UInt8>, as form: Form) throws {
        let id = description.vocabularySize
        guard id < Self.tokenLimit else {
            throw MartletError(
                .limitExceeded, "the vocabulary has more than \(Self.tokenLimit) tokens, the limit",
                context: ["token": "\(id)"])
        }
        var isMerged = true
        switch form {
        case .byteAlphabet:
            // Some vocabularies hold tokens outside the byte alphabet; no merge makes them.
            isMerged = ByteAlphabet.appendBytes(of: text, to: &description.tokenBytes)
            if !isMerged { description.tokenBytes.append(contentsOf: text) }
        case .plain:
            description.tokenBytes.append(contentsOf: text)
            isMerged = false
        case .sentencePiece: SpaceMark.appendUnmarked(text, to: &description.tokenBytes)
        case .byte:
            guard let byte = Self.byte(text) else {
                throw MartletError(
                    .corrupt,
                    "token \(id) is of the kind byte but is written "
                        + "'\(String(decoding: text.prefix(16), as: UTF8.self))', not <0xNN>",
                    context: ["token": "\(id)"])
            }
            description.tokenBytes.append(byte)
            byteIDs[Int(byte)] = UInt32(truncatingIfNeeded: id)
            isMerged = false
        }
        guard description.tokenBytes.count <= Self.textLimit else {
            throw MartletError(
                .limitExceeded,
                "the vocabulary's text exceeds \(Self.textLimit) bytes, the limit, at token \(id)",
                context: ["token": "\(id)"])
        }
        description.tokenOffsets.append(UInt32(truncatingIfNeeded: description.tokenBytes.count))
        self.isMerged.append(isMerged)
    }

    /// Appends the next token.
    mutating func append(_ text: String, as form: Form) throws {
        var text = text
        try text.withUTF8 { try append($0, as: form) }
    }

    /// Whether a text is `<0xNN>`, and which byte.
    static func byte(_ text: UnsafeBufferPointer<UInt8>) -> UInt8? {
        guard text.count == 6, text.starts(with: "<0x".utf8), text[5] == UInt8(ascii: ">"),
            text[3] != UInt8(ascii: "+"), text[3] != UInt8(ascii: "-")
        else { return nil }
        return UInt8(String(decoding: text[3..<5], as: UTF8.self), radix: 16)
    }

    /// Keeps the byte tokens as the stand-in of unknown characters.
    ///
    /// - Throws: `corrupt` where some of the 256 are missing; none at all is allowed.
    mutating func keepByteTokens() throws {
        let known = byteIDs.filter { $0 != .max }.count
        guard known == 0 || known == 256 else {
            throw MartletError(
                .corrupt, "the vocabulary has \(known) of the 256 byte tokens <0x00> to <0xFF>")
        }
        description.byteIDs = known == 0 ? [] : byteIDs
    }

    /// Resolves merges one by one; call `finish` at the end.
    func mergeReader(count: Int? = nil) -> MergeReader {
        MergeReader(
            index: VocabularyIndex(description) { isMerged[$0] },
            all: VocabularyIndex(description) { _ in true },
            isSentencePiece: description.model == .sentencePiece, capacity: count ?? 0)
    }
}

/// Turns merges, written as two halves, into ids.
struct MergeReader {
    private let index: VocabularyIndex
    private let all: VocabularyIndex
    private let isSentencePiece: Bool
    /// Left, right and result of each merge.
    private(set) var merges: [UInt32] = []
    private var bytes: [UInt8] = []

    init(index: VocabularyIndex, all: VocabularyIndex, isSentencePiece: Bool, capacity: Int) {
        self.index = index
        self.all = all
        self.isSentencePiece = isSentencePiece
        merges.reserveCapacity(min(capacity, VocabularyBuilder.mergeLimit) * 3)
    }

    /// Appends the next merge.
    mutating func append(_ left: UnsafeBufferPointer<UInt8>, _ right: UnsafeBufferPointer<UInt8>)
        throws
    {
        let rank = merges.count / 3
        guard rank < VocabularyBuilder.mergeLimit else {
            throw MartletError(
                .limitExceeded,
                "the vocabulary has more than \(VocabularyBuilder.mergeLimit) merges, the limit")
        }
        bytes.removeAll(keepingCapacity: true)
        appendBytes(left)
        let split = bytes.count
        appendBytes(right)
        let ids: (Int, Int, Int)? = bytes.withUnsafeBufferPointer { whole in
            guard let first = id(UnsafeBufferPointer(rebasing: whole[..<split])),
                let second = id(UnsafeBufferPointer(rebasing: whole[split...])),
                let result = id(whole)
            else { return nil }
            return (first, second, result)
        }
        guard let ids else {
            let text = [left, right].map { String(decoding: $0.prefix(64), as: UTF8.self) }
            throw MartletError(
                .corrupt,
                "merge \(rank) (\"\(text[0]) \(text[1])\") names a token that the vocabulary lacks",
                context: ["merge": "\(rank)"])
        }
        for id in [ids.0, ids.1, ids.2] { merges.append(UInt32(truncatingIfNeeded: id)) }
    }

    private func id(_ text: UnsafeBufferPointer<UInt8>) -> Int? {
        index.id(of: text) ?? all.id(of: text)
    }

    private mutating func appendBytes(_ text: UnsafeBufferPointer<UInt8>) {
        if isSentencePiece {
            SpaceMark.appendUnmarked(text, to: &bytes)
        } else if !ByteAlphabet.appendBytes(of: text, to: &bytes) {
            bytes.append(contentsOf: text)
        }
    }
}
