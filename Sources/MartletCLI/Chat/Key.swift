// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What a person typed.
enum Key: Equatable {
    /// A scalar of text.
    case text(Unicode.Scalar)
    /// Enter.
    case enter
    /// Enter with Alt, or Ctrl-J: a new line in the same message.
    case newLine
    case backspace
    case delete
    case left
    case right
    case up
    case down
    case home
    case end
    case wordLeft
    case wordRight
    case eraseWord
    case eraseToStart
    case eraseToEnd
    case clearScreen
    /// Ctrl-C.
    case interrupt
    /// Ctrl-D.
    case endOfInput
    /// Ctrl-Z.
    case suspend
    /// The terminal is about to send pasted text, or has sent it.
    case paste(isStart: Bool)
    /// A key without a meaning here.
    case unknown
}

/// Reads keys from the bytes that a terminal sends.
struct KeyReader {
    /// The next byte, given so many milliseconds; nil for as long as it takes.
    let byte: (Int32?) -> UInt8?

    private static let controls: [UInt8: Key] = [
        1: .home, 2: .left, 3: .interrupt, 4: .endOfInput, 5: .end, 6: .right, 8: .backspace,
        10: .newLine, 11: .eraseToEnd, 12: .clearScreen, 13: .enter, 14: .down, 16: .up,
        21: .eraseToStart, 23: .eraseWord, 26: .suspend, 127: .backspace,
    ]

    /// What follows ESC [ (or ESC O), parameters included.
    private static let sequences: [String: Key] = [
        "A": .up, "B": .down, "C": .right, "D": .left, "H": .home, "F": .end, "1~": .home,
        "7~": .home, "4~": .end, "8~": .end, "3~": .delete, "1;5C": .wordRight,
        "1;5D": .wordLeft, "1;3C": .wordRight, "1;3D": .wordLeft, "200~": .paste(isStart: true),
        "201~": .paste(isStart: false),
    ]

    /// The next key; nil at the end of input.
    func next() -> Key? {
        guard let first = byte(nil) else { return nil }
        if first == 0x1B { return escape() }
        if first == 9 { return .text("\t") }
        if first < 0x20 || first == 0x7F { return Self.controls[first] ?? .unknown }
        return .text(scalar(first))
    }

    /// A scalar of UTF-8; U+FFFD where the bytes are none.
    private func scalar(_ first: UInt8) -> Unicode.Scalar {
        var bytes = [first]
        let count = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2
        while bytes.count < count, let next = byte(50) { bytes.append(next) }
        let text = String(decoding: bytes, as: UTF8.self)
        return text.unicodeScalars.first ?? "\u{FFFD}"
    }

    private func escape() -> Key {
        guard let second = byte(50) else { return .unknown }
        switch second {
        case UInt8(ascii: "["), UInt8(ascii: "O"):
            var text = ""
            while text.utf8.count < 16, let next = byte(50) {
                text.unicodeScalars.append(Unicode.Scalar(next))
                if next >= 0x40, next <= 0x7E { break }
            }
            return Self.sequences[text] ?? .unknown
        case 13, 10: return .newLine
        case 8, 127: return .eraseWord
        case UInt8(ascii: "b"): return .wordLeft
        case UInt8(ascii: "f"): return .wordRight
        default: return .unknown
        }
    }
}
