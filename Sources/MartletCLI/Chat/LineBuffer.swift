// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Text with a cursor in it: what keys do to a message.
struct LineBuffer: Equatable {
    private(set) var before = ""
    private(set) var after = ""

    /// The whole text.
    var text: String {
        get { before + after }
        set { (before, after) = (newValue, "") }
    }

    /// Applies a key that edits or moves.
    ///
    /// - Returns: Whether it did anything.
    mutating func apply(_ key: Key) -> Bool {
        let old = self
        switch key {
        // A scalar may join the character before it, so characters are never counted.
        case .text(let scalar): before.unicodeScalars.append(scalar)
        case .newLine: before += "\n"
        case .backspace: if !before.isEmpty { before.removeLast() }
        case .delete: if !after.isEmpty { after.removeFirst() }
        case .left: if let last = before.popLast() { after = String(last) + after }
        case .right: if !after.isEmpty { before.append(after.removeFirst()) }
        case .home: (before, after) = Self.cut(text, lineStart(before))
        case .end:
            let rest = after.prefix { !$0.isNewline }
            (before, after) = (before + rest, String(after.dropFirst(rest.count)))
        case .wordLeft: (before, after) = Self.cut(text, wordStart(before))
        case .wordRight:
            let gap = after.prefix { !Self.isWord($0) }
            let word = after.dropFirst(gap.count).prefix(while: Self.isWord)
            (before, after) = (
                before + gap + word, String(after.dropFirst(gap.count + word.count))
            )
        case .eraseWord: before = String(before.prefix(wordStart(before)))
        case .eraseToStart: before = String(before.prefix(lineStart(before)))
        case .eraseToEnd: after = String(after.drop { !$0.isNewline })
        default: return false
        }
        return self != old
    }

    /// Characters before the line that the cursor is in.
    private func lineStart(_ text: String) -> Int {
        text.count - text.reversed().prefix { !$0.isNewline }.count
    }

    /// Characters before the word that the cursor is in or behind.
    private func wordStart(_ text: String) -> Int {
        var rest = text[...]
        while let last = rest.last, !Self.isWord(last) { rest.removeLast() }
        while let last = rest.last, Self.isWord(last) { rest.removeLast() }
        return rest.count
    }

    private static func isWord(_ character: Character) -> Bool {
        character.isLetter || character.isNumber
    }

    private static func cut(_ text: String, _ count: Int) -> (String, String) {
        (String(text.prefix(count)), String(text.dropFirst(count)))
    }
}
