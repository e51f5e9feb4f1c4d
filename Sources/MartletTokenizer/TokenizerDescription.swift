// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A token that is looked for in the text before the text is cut into pieces.
package struct AddedToken: Sendable, Equatable {
    /// Id of the token.
    package var id: Int
    /// The text it stands for.
    package var content: String
    /// Control token: only trusted text may contain it.
    package var isSpecial: Bool
    /// Matches only where no word character is next to it.
    package var singleWord: Bool
    /// Takes the whitespace before it along.
    package var stripsLeft: Bool
    /// Takes the whitespace after it along.
    package var stripsRight: Bool
    /// Looked for in a second round, in normalized text, after those that are not.
    package var isNormalized: Bool
    /// The text that is looked for: `content` as it is in normalized text.
    package var pattern: String

    /// Describes an added token.
    package init(
        id: Int, content: String, isSpecial: Bool, singleWord: Bool = false,
        stripsLeft: Bool = false,
        stripsRight: Bool = false, isNormalized: Bool = false, pattern: String? = nil
    ) {
        self.id = id
        self.content = content
        self.pattern = pattern ?? content
        self.isSpecial = isSpecial
        self.singleWord = singleWord
        self.stripsLeft = stripsLeft
        self.stripsRight = stripsRight
        self.isNormalized = isNormalized
    }
}

/// The algorithm behind a vocabulary.
package enum TokenizerModelKind: String, Sendable {
    /// Byte-level byte-pair encoding: bytes merge by rank.
    case bytePair = "bpe"
    /// SentencePiece's byte-pair encoding: characters merge by rank or by score, with bytes in place
    /// of unknown characters.
    case sentencePiece = "spm"
}

/// Where a space is put before text that is to be encoded.
package enum SpacePrefix: String, Sendable, CaseIterable {
    /// Nowhere.
    case never
    /// Before the text, if no added token begins it.
    case start
    /// Before the text, unless it begins with a space or an added token.
    case startUnlessSpace
    /// Before every part between added tokens.
    case parts
    /// Before every part between added tokens that does not begin with a space.
    case partsUnlessSpace
}

/// All that a tokenizer is made of, as plain data: from a checkpoint, to and from an engine file.
package struct TokenizerDescription: Sendable, Equatable {
    /// The algorithm.
    package var model = TokenizerModelKind.bytePair
    /// Bytes of all tokens, one after the other: out of the byte alphabet, and with spaces in place
    /// of SentencePiece's `▁`.
    package var tokenBytes: [UInt8] = []
    /// Where each token starts in `tokenBytes`; one more than there are tokens.
    package var tokenOffsets: [UInt32] = [0]
    /// Merges in order of rank: left id, right id, id of the result.
    package var merges: [UInt32] = []
    /// Scores of the tokens, in place of merges: the pair whose token has the greatest merges first.
    package var scores: [Float] = []
    /// Ids of the tokens that stand for the 256 bytes where characters are the units, or empty.
    package var byteIDs: [UInt32] = []
    /// Adjacent unknown characters become one unknown token.
    package var fusesUnknown = false
    /// Rules that cut text into pieces.
    package var preTokenizer = PreTokenizerKind.gpt2
    /// Where a space is put before text.
    package var spacePrefix = SpacePrefix.never
    /// Leading, trailing and repeated spaces are dropped from the text.
    package var dropsExtraSpaces = false
    /// Text is brought into Unicode's composed form (NFC).
    package var composes = false
    /// Decoded text loses one leading space.
    package var stripsLeadingSpace = false
    /// A piece that is a token as a whole is not merged.
    package var ignoresMerges = false
    /// Tokens that are looked for in the text, and control tokens.
    package var addedTokens: [AddedToken] = []
    /// Ids put before a text.
    package var prefixIDs: [Int] = []
    /// Ids put after a text.
    package var suffixIDs: [Int] = []
    /// Begin of sequence.
    package var bosID: Int?
    /// End of sequence.
    package var eosID: Int?
    /// Unknown token.
    package var unknownID: Int?
    /// Padding.
    package var padID: Int?
    /// Every id that ends an answer, `eosID` among them.
    package var stopIDs: [Int] = []
    /// Jinja source of the chat template.
    package var chatTemplate: String?

    /// An empty description.
    package init() {}

    /// Count of tokens.
    package var vocabularySize: Int { max(tokenOffsets.count - 1, 0) }

    /// Bytes of a token; empty for an id outside the vocabulary.
    package func bytes(of id: Int) -> ArraySlice<UInt8> {
        guard id >= 0, id < vocabularySize else { return [] }
        let start = Int(tokenOffsets[id])
        let end = Int(tokenOffsets[id + 1])
        guard start <= end, end <= tokenBytes.count else { return [] }
        return tokenBytes[start..<end]
    }

    /// Replaces what an id stands for.
    mutating func setBytes(of id: Int, to bytes: [UInt8]) {
        guard id >= 0, id < vocabularySize else { return }
        let range = Int(tokenOffsets[id])..<Int(tokenOffsets[id + 1])
        tokenBytes.replaceSubrange(range, with: bytes)
        for next in id + 1..<tokenOffsets.count {
            tokenOffsets[next] = tokenOffsets[next] - UInt32(range.count) + UInt32(bytes.count)
        }
    }

    /// Texts of control tokens that end an answer in the model families known.
    static let knownStops: Set<String> = [
        "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|end|>",
        "<end_of_turn>", "</s>", "<|end_of_sentence|>", "<｜end▁of▁sentence｜>", "<EOT>",
        "<|return|>",
    ]

    /// Fills `stopIDs` from `eosID` and the control tokens that are known to end an answer.
    mutating func findStops() {
        var ids = Set(stopIDs)
        if let eosID { ids.insert(eosID) }
        for token in addedTokens where token.isSpecial {
            if TokenizerDescription.knownStops.contains(token.content) { ids.insert(token.id) }
        }
        stopIDs = ids.sorted()
    }
}
