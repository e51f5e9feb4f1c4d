// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Rules that cut text into the pieces within which byte pairs merge.
package enum PreTokenizerKind: String, Sendable, CaseIterable {
    /// The pattern of GPT-2.
    case gpt2
    /// Every digit alone, then the pattern of GPT-2 on what lies between.
    case smollm
    /// The pattern of Llama 3 (cl100k): numbers in threes.
    case llama3
    /// The pattern of Qwen 2: cl100k with single numbers.
    case qwen2
    /// DeepSeek LLM: six patterns in a row.
    case deepSeekLLM = "deepseek-llm"
    /// DeepSeek Coder: five patterns in a row.
    case deepSeekCoder = "deepseek-coder"
    /// DeepSeek V2, V3 and R1: three patterns in a row.
    case deepSeekV3 = "deepseek-v3"
    /// Each space begins a piece (SentencePiece vocabularies only).
    case spaces
    /// No cutting: one piece per text between added tokens.
    case whole

    /// Whether it is a chain of patterns.
    var isChain: Bool {
        self == .deepSeekLLM || self == .deepSeekCoder || self == .deepSeekV3
    }
}

/// Hand-compiled pre-tokenizers over UTF-8 bytes.
///
/// A scanner answers where the piece that starts at a position ends. Bytes that are no UTF-8 count
/// as
/// characters of no class, one byte each.
struct PreTokenizer {
    let bytes: UnsafePointer<UInt8>
    /// End of the text: nothing beyond it is looked at.
    let end: Int
    let unicode: UnicodeClasses

    /// End of the piece that starts at `start` (`start < end`).
    @inline(__always)
    func pieceEnd(_ kind: PreTokenizerKind, _ start: Int) -> Int {
        switch kind {
        case .gpt2: gpt2(start, digitsAlone: false)
        case .smollm: gpt2(start, digitsAlone: true)
        case .llama3: cl100k(start, maxDigitCount: 3)
        case .qwen2: cl100k(start, maxDigitCount: 1)
        default: end
        }
    }

    /// Classes and byte length of the character at a position before `end`.
    @inline(__always)
    func character(_ position: Int) -> (classes: CharacterClass, length: Int) {
        let first = bytes[position]
        if first < 0x80 { return (unicode.ascii[Int(first)], 1) }
        return multiByteCharacter(position)
    }

    @inline(never)
    private func multiByteCharacter(_ position: Int) -> (classes: CharacterClass, length: Int) {
        let (code, length) = UTF8Decoding.scalar(bytes, position, end)
        guard let code else { return ([], 1) }
        return (unicode(code), length)
    }

    /// End of the run of characters that satisfy the condition.
    @inline(__always)
    func run(from start: Int, while condition: (CharacterClass) -> Bool) -> Int {
        var position = start
        while position < end {
            let next = character(position)
            if !condition(next.classes) { break }
            position += next.length
        }
        return position
    }

    /// Length of `s t re ve m ll d` after an apostrophe, 0 if none of them follows.
    ///
    /// - Parameter folding: Whether capitals count, and U+017F, which folds to s.
    @inline(__always)
    func contractionLength(_ start: Int, folding: Bool) -> Int {
        guard start < end else { return 0 }
        let mask: UInt8 = folding ? 0x20 : 0
        let first = bytes[start] | mask
        switch first {
        case UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "m"), UInt8(ascii: "d"): return 1
        case UInt8(ascii: "r"), UInt8(ascii: "v"):
            return start + 1 < end && bytes[start + 1] | mask == UInt8(ascii: "e") ? 2 : 0
        case UInt8(ascii: "l"):
            return start + 1 < end && bytes[start + 1] | mask == UInt8(ascii: "l") ? 2 : 0
        default:
            let isLongS =
                folding && start + 1 < end && bytes[start] == 0xC5 && bytes[start + 1] == 0xBF
            return isLongS ? 2 : 0
        }
    }

    /// End of the run of whitespace at `start`, less its last character where text follows: `\s+(?!\S)|\s+`.
    @inline(__always)
    func whitespaceEnd(_ start: Int, isTextEnd: (Int) -> Bool) -> Int {
        var position = start
        var last = start
        while position < end {
            let next = character(position)
            if !next.classes.contains(.whitespace) { break }
            last = position
            position += next.length
        }
        return last == start || isTextEnd(position) ? position : last
    }

    /// Start of the whitespace that ends at `end`.
    func whitespaceStart(from start: Int, to end: Int) -> Int {
        var position = end
        while position > start {
            var first = position - 1
            while first > start, first > position - 4, bytes[first] & 0xC0 == 0x80 { first -= 1 }
            let (code, length) = UTF8Decoding.scalar(bytes, first, position)
            guard let code, first + length == position, unicode(code).contains(.whitespace)
            else { break }
            position = first
        }
        return position
    }
}
