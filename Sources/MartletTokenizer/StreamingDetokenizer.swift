// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Turns ids into text as they come, never half a character.
///
/// All pieces joined, `finish()` included, equal `Tokenizer.decode` of all ids.
package struct StreamingDetokenizer: Sendable {
    private let tokenizer: Tokenizer
    private let skipSpecial: Bool
    private var pending: [UInt8] = []
    private var isAtStart = true

    /// Starts a text.
    package init(_ tokenizer: Tokenizer, skipSpecial: Bool = true) {
        self.tokenizer = tokenizer
        self.skipSpecial = skipSpecial
    }

    /// Takes the next id and returns the text that is now certain, often empty within a character.
    package mutating func push(_ id: Int) -> String {
        if skipSpecial, tokenizer.isSpecial(id) { return "" }
        pending += tokenizer.bytes(of: id)
        if isAtStart, let first = pending.first {
            isAtStart = false
            if tokenizer.description.stripsLeadingSpace, first == UInt8(ascii: " ") {
                pending.removeFirst()
            }
        }
        let tail = UTF8Decoding.incompleteTailLength(pending)
        let text = String(decoding: pending.dropLast(tail), as: UTF8.self)
        pending.removeFirst(pending.count - tail)
        return text
    }

    /// Returns what is left: U+FFFD for a character that never became whole.
    package mutating func finish() -> String {
        let text = String(decoding: pending, as: UTF8.self)
        pending.removeAll()
        return text
    }
}
