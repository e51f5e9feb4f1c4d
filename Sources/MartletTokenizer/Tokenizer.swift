// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// A part of a text, with the knowledge of where it comes from.
package struct TextSegment: Sendable, Equatable {
    /// The text.
    package var text: String
    /// Whether control tokens written in it count: true for a template's own text, false for a
    /// user's.
    package var isTrusted: Bool

    /// A part of a text.
    package init(_ text: String, isTrusted: Bool) {
        self.text = text
        self.isTrusted = isTrusted
    }
}

/// Text to token ids and back.
///
/// Copies share their tables.
package struct Tokenizer: Sendable {
    let storage: TokenizerStorage

    /// Builds the tables (a few ms for 49k tokens).
    ///
    /// - Throws: `corrupt` if ids or offsets do not fit.
    package init(_ description: TokenizerDescription) throws {
        try description.check()
        storage = try TokenizerStorage(description)
    }

    /// What it is made of.
    package var description: TokenizerDescription { storage.description }
    /// Count of tokens.
    package var vocabularySize: Int { storage.description.vocabularySize }
    /// Begin of sequence.
    package var bosID: Int? { storage.description.bosID }
    /// End of sequence.
    package var eosID: Int? { storage.description.eosID }
    /// Every id that ends an answer.
    package var stopIDs: [Int] { storage.description.stopIDs }

    /// Id of a token by its text: an added token or a token's own text.
    package func tokenID(for text: String) -> Int? {
        storage.addedIDs[Array(text.utf8)] ?? storage.model.index.id(of: Array(text.utf8))
    }

    /// Whether an id is a control token.
    package func isSpecial(_ id: Int) -> Bool { storage.specialIDs.contains(id) }

    /// Bytes that a token stands for; empty outside the vocabulary.
    package func bytes(of id: Int) -> ArraySlice<UInt8> { storage.description.bytes(of: id) }

    /// Text of ids; bytes that are no UTF-8 become U+FFFD per maximal subpart.
    ///
    /// Of a text that encoding put a space before, the first space is dropped.
    package func decode(_ ids: some Sequence<Int>, skipSpecial: Bool = true) -> String {
        var bytes: [UInt8] = []
        for id in ids where !(skipSpecial && isSpecial(id)) { bytes += self.bytes(of: id) }
        let drops = storage.description.stripsLeadingSpace && bytes.first == UInt8(ascii: " ")
        return String(decoding: bytes.dropFirst(drops ? 1 : 0), as: UTF8.self)
    }
}

/// The shared, immutable part of a tokenizer, and a pool of encoders with their caches.
final class TokenizerStorage: Sendable {
    let description: TokenizerDescription
    let model: BytePairModel
    let normalizer: TextNormalizer
    /// Added tokens that are looked for in the text as it comes.
    let plainMatcher: AddedTokenMatcher
    /// Added tokens that are looked for in normalized text.
    let normalizedMatcher: AddedTokenMatcher
    let specialIDs: Set<Int>
    let addedIDs: [[UInt8]: Int]
    private let pool = Mutex<[PoolItem]>([])

    /// `@unchecked Sendable`: an encoder is in the pool or in the hands of one thread.
    private struct PoolItem: @unchecked Sendable { var encoder: PieceEncoder }

    init(_ description: TokenizerDescription) throws {
        self.description = description
        model = try BytePairModel(description)
        normalizer = TextNormalizer(description)
        let (added, template) = (description.addedTokens, description.chatTemplate)
        plainMatcher = AddedTokenMatcher(added.filter { !$0.isNormalized }, template: template)
        normalizedMatcher = AddedTokenMatcher(added.filter(\.isNormalized), template: template)
        specialIDs = Set(description.addedTokens.filter(\.isSpecial).map(\.id))
        addedIDs = Dictionary(
            description.addedTokens.map { (Array($0.content.utf8), $0.id) },
            uniquingKeysWith: { first, _ in first })
    }

    /// Lends an encoder to the closure.
    func withEncoder<Result>(_ body: (PieceEncoder) -> Result) -> Result {
        let encoder = pool.withLock { $0.popLast()?.encoder } ?? PieceEncoder(model)
        defer {
            pool.withLock { items in
                if items.count < 4 { items.append(PoolItem(encoder: encoder)) }
            }
        }
        return body(encoder)
    }
}
