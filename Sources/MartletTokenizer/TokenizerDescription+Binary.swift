// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension TokenizerDescription {
    private static let magic: [UInt8] = Array("MTOK".utf8)
    private static let version: UInt32 = 1

    /// The description as bytes: little-endian, the same for the same description.
    ///
    /// Layout: magic, version, vocabulary size, byte count, merge count, then offsets, token bytes,
    /// merges,
    /// names, flags, ids, added tokens, chat template.
    package func serialized() -> [UInt8] {
        var writer = ByteWriter()
        writer.bytes.reserveCapacity(
            tokenBytes.count + tokenOffsets.count * 4 + merges.count * 4 + 4096)
        writer.bytes += TokenizerDescription.magic
        writer.append(TokenizerDescription.version)
        writer.append(tokenOffsets)
        writer.append(tokenBytes)
        writer.append(merges)
        writer.append(Array(model.rawValue.utf8))
        writer.append(Array(preTokenizer.rawValue.utf8))
        writer.append(UInt32(addsPrefixSpace ? 1 : 0) | UInt32(ignoresMerges ? 2 : 0))
        for id in [bosID, eosID, unknownID, padID] {
            writer.append(id.map { UInt32(truncatingIfNeeded: $0) } ?? UInt32.max)
        }
        for ids in [prefixIDs, suffixIDs, stopIDs] {
            writer.append(ids.map { UInt32(truncatingIfNeeded: $0) })
        }
        writer.append(UInt32(truncatingIfNeeded: addedTokens.count))
        for token in addedTokens {
            var flags: UInt32 = token.isSpecial ? 1 : 0
            if token.singleWord { flags |= 2 }
            if token.stripsLeft { flags |= 4 }
            if token.stripsRight { flags |= 8 }
            if token.isNormalized { flags |= 16 }
            writer.append(UInt32(truncatingIfNeeded: token.id))
            writer.append(flags)
            writer.append(Array(token.content.utf8))
        }
        writer.append(UInt32(chatTemplate == nil ? 0 : 1))
        writer.append(Array((chatTemplate ?? "").utf8))
        return writer.bytes
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
                .unsupported, "tokenizer section of version \(version); this build reads version 1",
                mend: "Build the engine again with this version of martlet")
        }
        tokenOffsets = try reader.words()
        tokenBytes = try reader.byteArray()
        merges = try reader.words()
        guard let model = TokenizerModelKind(rawValue: try reader.text()) else {
            throw reader.damaged("model")
        }
        guard let kind = PreTokenizerKind(rawValue: try reader.text()) else {
            throw reader.damaged("pre-tokenizer")
        }
        self.model = model
        preTokenizer = kind
        let flags = try reader.word()
        guard flags < 4 else { throw reader.damaged("flags") }
        addsPrefixSpace = flags & 1 != 0
        ignoresMerges = flags & 2 != 0
        bosID = try reader.identifier()
        eosID = try reader.identifier()
        unknownID = try reader.identifier()
        padID = try reader.identifier()
        prefixIDs = try reader.words().map { Int($0) }
        suffixIDs = try reader.words().map { Int($0) }
        stopIDs = try reader.words().map { Int($0) }
        for _ in 0..<(try reader.word()) {
            let id = Int(try reader.word())
            let flags = try reader.word()
            guard flags < 32 else { throw reader.damaged("added token flags") }
            addedTokens.append(
                AddedToken(
                    id: id, content: try reader.text(), isSpecial: flags & 1 != 0,
                    singleWord: flags & 2 != 0,
                    stripsLeft: flags & 4 != 0, stripsRight: flags & 8 != 0,
                    isNormalized: flags & 16 != 0))
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
        for id in merges where Int(id) >= size {
            throw fail("a merge names token \(id), the vocabulary has \(size)")
        }
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
            guard !token.content.isEmpty else { throw fail("added token \(token.id) is empty") }
        }
    }
}
