// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension PreTokenizer {
    /// End of the piece by the pattern of Llama 3.
    ///
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|`
    /// `\s+(?!\S)|\s+`
    ///
    /// - Parameter maxDigitCount: 3 for Llama 3, 1 for Qwen 2.
    @inline(__always)
    func cl100k(_ start: Int, maxDigitCount: Int) -> Int {
        let first = character(start)
        if bytes[start] == UInt8(ascii: "'") {
            let length = contractionLength(start + 1, folding: true)
            if length > 0 { return start + 1 + length }
        }
        if first.classes.contains(.letter) { return run(from: start) { $0.contains(.letter) } }
        if first.classes.contains(.number) { return numberEnd(start, maxDigitCount) }
        let second = start + first.length
        if !isLineBreak(start), second < end {
            let next = character(second).classes
            if next.contains(.letter) { return run(from: second) { $0.contains(.letter) } }
        }
        if !first.classes.contains(.whitespace) { return punctuationEnd(start) }
        if bytes[start] == UInt8(ascii: " "), second < end {
            let others: CharacterClass = [.letter, .number, .whitespace]
            if character(second).classes.isDisjoint(with: others) { return punctuationEnd(second) }
        }
        if let lineEnd = lineBreakEnd(start) { return lineEnd }
        return whitespaceEnd(start) { $0 == end }
    }

    @inline(__always)
    func isLineBreak(_ position: Int) -> Bool {
        bytes[position] == UInt8(ascii: "\n") || bytes[position] == UInt8(ascii: "\r")
    }

    func numberEnd(_ start: Int, _ maxDigitCount: Int) -> Int {
        var position = start
        var count = 0
        while position < end, count < maxDigitCount {
            let next = character(position)
            if !next.classes.contains(.number) { break }
            position += next.length
            count += 1
        }
        return position
    }

    private func punctuationEnd(_ start: Int) -> Int {
        let others: CharacterClass = [.letter, .number, .whitespace]
        var position = run(from: start) { $0.isDisjoint(with: others) }
        while position < end, isLineBreak(position) { position += 1 }
        return position
    }

    /// `\s*[\r\n]+`: up to the last line break of the whitespace run, nil if it has none.
    func lineBreakEnd(_ start: Int) -> Int? {
        var position = start
        var found: Int?
        while position < end {
            let next = character(position)
            if !next.classes.contains(.whitespace) { break }
            if isLineBreak(position) { found = position + 1 }
            position += next.length
        }
        return found
    }
}
