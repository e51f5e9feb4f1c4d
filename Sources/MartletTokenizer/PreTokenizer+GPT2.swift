// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension PreTokenizer {
    /// End of the piece by the pattern of GPT-2.
    ///
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    ///
    /// - Parameter digitsAlone: Cut out every number character first (`Digits` with individual
    ///   digits);
    ///   the pattern then sees the text between as whole texts.
    @inline(__always)
    func gpt2(_ start: Int, digitsAlone: Bool) -> Int {
        let first = character(start)
        if digitsAlone, first.classes.contains(.digit) { return start + first.length }
        if bytes[start] == UInt8(ascii: "'") {
            let length = contractionLength(start + 1, folding: false)
            if length > 0 { return start + 1 + length }
        }
        var body = start
        var classes = first.classes
        if bytes[start] == UInt8(ascii: " "), start + 1 < end {
            body = start + 1
            classes = character(body).classes
        }
        let stop: CharacterClass = digitsAlone ? .digit : .number
        if classes.contains(.letter) { return run(from: body) { $0.contains(.letter) } }
        if classes.contains(stop) {
            if digitsAlone { return start + 1 }
            return run(from: body) { $0.contains(.number) }
        }
        if !classes.contains(.whitespace) {
            let others: CharacterClass = [.letter, .whitespace, stop]
            return run(from: body) { $0.isDisjoint(with: others) }
        }
        return whitespaceEnd(start) { position in
            position == end || digitsAlone && character(position).classes.contains(.digit)
        }
    }
}
