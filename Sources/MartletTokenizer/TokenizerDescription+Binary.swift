// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension TokenizerDescription {
    private static let magic: [UInt8] = Array("MTOK".utf8)
    private static let version: UInt32 = 2

    /// The description as bytes: little-endian, the same for the same description.
    ///
    /// Layout: magic, version, then offsets, token bytes, merges, scores, byte ids, names, flags,
    /// ids, added tokens, chat template; arrays and texts with their counts before them.
    package func serialized() -> [UInt8] {
        var writer = ByteWriter()
        writer.bytes.reserveCapacity(
            tokenBytes.count + tokenOffsets.count * 4 + merges.count * 4 + 4096)
        writer.bytes += TokenizerDescription.magic
        writer.append(TokenizerDescription.version)
        writer.append(tokenOffsets)
        writer.append(tokenBytes)
        writer.append(merges)
        writer.append(scores.map(\.bitPattern))
        writer.append(byteIDs)
        writer.append(Array(model.rawValue.utf8))
        writer.append(Array(preTokenizer.rawValue.utf8))
        writer.append(Array(spacePrefix.rawValue.utf8))
        writer.append(
            Self.flags([
                ignoresMerges, fusesUnknown, dropsExtraSpaces, composes, stripsLeadingSpace,
            ]))
        for id in [bosID, eosID, unknownID, padID] {
            writer.append(id.map { UInt32(truncatingIfNeeded: $0) } ?? UInt32.max)
        }
        for ids in [prefixIDs, suffixIDs, stopIDs] {
            writer.append(ids.map { UInt32(truncatingIfNeeded: $0) })
        }
        writer.append(UInt32(truncatingIfNeeded: addedTokens.count))
        for token in addedTokens {
            writer.append(UInt32(truncatingIfNeeded: token.id))
            writer.append(
                Self.flags([
                    token.isSpecial, token.singleWord, token.stripsLeft, token.stripsRight,
                    token.isNormalized,
                ]))
            writer.append(Array(token.content.utf8))
            writer.append(Array(token.pattern.utf8))
        }
        writer.append(UInt32(chatTemplate == nil ? 0 : 1))
        writer.append(Array((chatTemplate ?? "").utf8))
        return writer.bytes
    }

    private static func flags(_ values: [Bool]) -> UInt32 {
        values.enumerated().reduce(0) { $0 | ($1.element ? 1 << UInt32($1.offset) : 0) }
    }

    /// Reads what `serialized()` wrote.
    ///
    /// - Throws: `corrupt` for damaged bytes, `unsupported` for a newer version.
    package init(serialized bytes: ByteView) throws {
        self.init()
        var reader = ByteReader(bytes)
        guard try reader.bytes(4) == TokenizerDescription.magic else {
            throw reader.damaged("magic")
        }
        let version = try reader.word()
        guard version == TokenizerDescription.version else {
            throw MartletError(
                .unsupported,
                "tokenizer section of version \(version); this build reads version \(TokenizerDescription.version)",
                mend: "Build the engine again with this version of martlet")
        }
        tokenOffsets = try reader.words()
        tokenBytes = try reader.byteArray()
        merges = try reader.words()
        scores = try reader.words().map(Float.init(bitPattern:))
        byteIDs = try reader.words()
        guard let model = TokenizerModelKind(rawValue: try reader.text()) else {
            throw reader.damaged("model")
        }
        guard let kind = PreTokenizerKind(rawValue: try reader.text()) else {
            throw reader.damaged("pre-tokenizer")
        }
        self.model = model
        preTokenizer = kind
        guard let prefix = SpacePrefix(rawValue: try reader.text()) else {
            throw reader.damaged("space prefix")
        }
        spacePrefix = prefix
        let flags = try reader.flags(5, "flags")
        ignoresMerges = flags[0]
        fusesUnknown = flags[1]
        dropsExtraSpaces = flags[2]
        composes = flags[3]
        stripsLeadingSpace = flags[4]
        bosID = try reader.identifier()
        eosID = try reader.identifier()
        unknownID = try reader.identifier()
        padID = try reader.identifier()
        prefixIDs = try reader.words().map { Int($0) }
        suffixIDs = try reader.words().map { Int($0) }
        stopIDs = try reader.words().map { Int($0) }
        for _ in 0..<(try reader.word()) {
            let id = Int(try reader.word())
            let flags = try reader.flags(5, "added token flags")
            addedTokens.append(
                AddedToken(
                    id: id, content: try reader.text(), isSpecial: flags[0], singleWord: flags[1],
                    stripsLeft: flags[2], stripsRight: flags[3], isNormalized: flags[4],
                    pattern: try reader.text()))
        }
        let hasTemplate = try reader.word()
        guard hasTemplate < 2 else { throw reader.damaged("template flag") }
        let template = try reader.text()
        if hasTemplate == 1 { chatTemplate = template }
        guard reader.isAtEnd else { throw reader.damaged("length") }
        try check()
    }

    /// Checks that every offset and id lies inside the vocabulary.
    ///
    /// - Throws: `corrupt` naming the first that does not.
    package func check() throws {
        func fail(_ what: String) -> MartletError { MartletError(.corrupt, "tokenizer: \(what)") }
        guard tokenOffsets.count < Int(Int32.max), let first = tokenOffsets.first, first == 0,
            Int(tokenOffsets[tokenOffsets.count - 1]) == tokenBytes.count
        else { throw fail("token offsets do not span the \(tokenBytes.count) bytes of tokens") }
        var previous: UInt32 = 0
        for offset in tokenOffsets {
            guard offset >= previous else {
                throw fail("token offset \(offset) follows \(previous)")
            }
            previous = offset
        }
        guard merges.count % 3 == 0 else {
            throw fail("\(merges.count) numbers of merges, not triples")
        }
        let size = vocabularySize
        guard scores.isEmpty || scores.count == size, scores.allSatisfy(\.isFinite) else {
            throw fail("\(scores.count) scores, finite numbers all, for \(size) tokens")
        }
        guard scores.isEmpty || model == .sentencePiece else {
            throw fail("scores in a vocabulary of the kind \(model.rawValue)")
        }
        guard byteIDs.isEmpty || byteIDs.count == 256 else {
            throw fail("\(byteIDs.count) byte tokens, not 256")
        }
        for id in byteIDs where Int(id) >= size {
            throw fail("byte token \(id), the vocabulary has \(size)")
        }
        for id in merges where Int(id) >= size {
            throw fail("a merge names token \(id), the vocabulary has \(size)")
        }
        if model == .sentencePiece { try checkLengths() }
        for ids in [
            prefixIDs, suffixIDs, stopIDs, [bosID, eosID, unknownID, padID].compactMap({ $0 }),
        ] {
            for id in ids where id < 0 || id >= size {
                throw fail("id \(id), the vocabulary has \(size)")
            }
        }
        for token in addedTokens {
            guard token.id >= 0, token.id < size else {
                throw fail("added token \(token.id), the vocabulary has \(size)")
            }
            guard !token.content.isEmpty, !token.pattern.isEmpty else {
                throw fail("added token \(token.id) is empty")
            }
        }
    }

    /// Longest token of a vocabulary with scores: all its parts are looked up.
    static let scoredTokenLimit = 256

    /// Checks that a merge is as long as its halves, and that tokens with scores are short.
    private func checkLengths() throws {
        func length(_ id: UInt32) -> Int {
            Int(tokenOffsets[Int(id) + 1]) - Int(tokenOffsets[Int(id)])
        }
        for start in stride(from: 0, to: merges.count, by: 3)
        where length(merges[start]) + length(merges[start + 1]) != length(merges[start + 2]) {
            throw MartletError(
                .corrupt, "tokenizer: merge \(start / 3) makes a token of another length")
        }
        let outside = Set(addedTokens.map(\.id))
        for id in 0..<(scores.isEmpty ? 0 : vocabularySize)
        where length(UInt32(truncatingIfNeeded: id)) > Self.scoredTokenLimit
            && !outside.contains(id)
        {
            throw MartletError(
                .limitExceeded,
                "tokenizer: token \(id) has \(length(UInt32(truncatingIfNeeded: id))) bytes, the "
                    + "limit is \(Self.scoredTokenLimit)", context: ["token": "\(id)"])
        }
    }
}
