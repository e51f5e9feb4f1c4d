// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Pairs of symbols, what they merge to, and in which order.
struct RankedMerges {
    private var words: [UInt32] = []
    private var ranks: [UInt32] = []

    /// Count of pairs.
    var count: Int { words.count / 3 }

    /// Merges that come in order of rank: left, right, result.
    init(ranked merges: [UInt32]) { words = merges }

    /// All pairs of symbols whose characters together are a token, the greatest score first.
    ///
    /// SentencePiece does not list merges: any two neighbours merge if they make a token. Tokens of
    /// equal score get the same rank, so that the leftmost pair goes first.
    ///
    /// - Throws: `limitExceeded` for more pairs than a vocabulary may have.
    /// - Parameters:
    ///   - outside: Ids that text never becomes: control tokens and bytes.
    ///   - characters: Symbols of single characters; those that occur only within tokens get symbols
    ///     beyond the vocabulary here.
    init(
        scored description: TokenizerDescription, _ index: VocabularyIndex, _ outside: Set<Int>,
        _ characters: inout [UInt32: UInt32]
    ) throws {
        let distinct = Set(description.scores).sorted(by: >)
        let rankOf = Dictionary(
            uniqueKeysWithValues: distinct.enumerated().map { ($1, UInt32(truncatingIfNeeded: $0)) }
        )
        var next = UInt32(truncatingIfNeeded: description.vocabularySize)
        try description.tokenBytes.withUnsafeBufferPointer { all in
            guard let base = all.baseAddress else { return }
            func symbol(_ start: Int, _ end: Int) -> UInt32? {
                let bytes = UnsafeBufferPointer(start: base + start, count: end - start)
                if let id = index.id(of: bytes) { return UInt32(truncatingIfNeeded: id) }
                let (code, length) = UTF8Decoding.scalar(base, start, end)
                guard let code, length == end - start else { return nil }
                if let known = characters[code] { return known }
                characters[code] = next
                next += 1
                return next - 1
            }
            for id in 0..<description.vocabularySize where !outside.contains(id) {
                let start = Int(description.tokenOffsets[id])
                let end = Int(description.tokenOffsets[id + 1])
                guard start < end, index.id(of: Array(all[start..<end])) == id,
                    let rank = rankOf[description.scores[id]]
                else { continue }
                var split = start + UTF8Decoding.scalar(base, start, end).length
                while split < end {
                    if let left = symbol(start, split), let right = symbol(split, end) {
                        guard ranks.count < VocabularyBuilder.mergeLimit else {
                            throw MartletError(
                                .limitExceeded,
                                "the vocabulary's tokens have more than "
                                    + "\(VocabularyBuilder.mergeLimit) pairs of parts, the limit",
                                context: ["token": "\(id)"])
                        }
                        words += [left, right, UInt32(truncatingIfNeeded: id)]
                        ranks.append(rank)
                    }
                    split += UTF8Decoding.scalar(base, split, end).length
                }
            }
        }
    }

    /// Visits left symbol, right symbol, result and rank of each.
    func forEach(_ body: (UInt32, UInt32, UInt32, UInt32) -> Void) {
        for pair in 0..<count {
            let rank = ranks.isEmpty ? UInt32(truncatingIfNeeded: pair) : ranks[pair]
            body(words[pair * 3], words[pair * 3 + 1], words[pair * 3 + 2], rank)
        }
    }
}
