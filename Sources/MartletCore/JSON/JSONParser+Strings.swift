// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JSONParser {
    /// Reads a string from its opening to its closing quote.
    mutating func parseString() throws -> String {
        let opening = position
        position += 1
        let start = position
        while position < count {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\"") {
                let part = UnsafeRawBufferPointer(rebasing: bytes[start..<position])
                guard let text = String(validating: part, as: UTF8.self) else {
                    throw failure("a string is not UTF-8", at: opening)
                }
                position += 1
                return text
            }
            if byte == UInt8(ascii: "\\") { return try parseEscapedString(from: start) }
            if byte < 0x20 { throw failure("a control character in a string") }
            position += 1
        }
        throw failure("a string has no end", at: opening)
    }

    /// Continues a string at its first backslash.
    private mutating func parseEscapedString(from start: Int) throws -> String {
        var content = [UInt8](bytes[start..<position])
        while position < count {
            let byte = bytes[position]
            position += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: content, as: UTF8.self) else {
                    throw failure("a string is not UTF-8", at: start - 1)
                }
                return text
            case UInt8(ascii: "\\"):
                try parseEscape(into: &content)
            case 0..<0x20:
                throw failure("a control character in a string", at: position - 1)
            default:
                content.append(byte)
            }
        }
        throw failure("a string has no end", at: start - 1)
    }

    private mutating func parseEscape(into content: inout [UInt8]) throws {
        let byte = peek()
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
        case UInt8(ascii: "b"): content.append(0x08)
        case UInt8(ascii: "f"): content.append(0x0c)
        case UInt8(ascii: "n"): content.append(0x0a)
        case UInt8(ascii: "r"): content.append(0x0d)
        case UInt8(ascii: "t"): content.append(0x09)
        case UInt8(ascii: "u"):
            let escape = position - 2
            var code = try parseHex()
            if code & 0xfc00 == 0xd800 {
                // A character above U+FFFF is written as two halves.
                guard count - position >= 2, bytes[position] == UInt8(ascii: "\\"),
                    bytes[position + 1] == UInt8(ascii: "u")
                else { throw failure("a lone surrogate", at: escape) }
                position += 2
                let low = try parseHex()
                guard low & 0xfc00 == 0xdc00 else { throw failure("a lone surrogate", at: escape) }
                code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff)
            }
            guard let scalar = Unicode.Scalar(code) else {
                throw failure("a lone surrogate", at: escape)
            }
            content += UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter
        default:
            throw failure("an unknown escape", at: position - 1)
        }
    }

    private mutating func parseHex() throws -> UInt32 {
        guard count - position >= 4 else { throw failure("expected four hexadecimal digits") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            let digit: UInt8
            switch bytes[position] {
            case let byte where byte >= 0x30 && byte <= 0x39: digit = byte - 0x30
            case let byte where byte | 0x20 >= 0x61 && byte | 0x20 <= 0x66:
                digit = (byte | 0x20) - 0x61 + 10
            default: throw failure("expected four hexadecimal digits")
            }
            code = code << 4 | UInt32(digit)
            position += 1
        }
        return code
    }
}
