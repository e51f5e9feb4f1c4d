// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reading UTF-8 that may be damaged.
enum UTF8Decoding {
    /// The scalar at a position and its length; nil and 1 where the bytes are no UTF-8.
    static func scalar(
        _ bytes: UnsafePointer<UInt8>, _ position: Int, _ end: Int
    ) -> (code: UInt32?, length: Int) {
        let first = bytes[position]
        if first < 0x80 { return (UInt32(first), 1) }
        let length = expectedLength(first)
        guard length > 1, end - position >= length else { return (nil, 1) }
        let second = bytes[position + 1]
        guard isSecond(second, after: first) else { return (nil, 1) }
        var code = (UInt32(first) & (0x7F >> UInt32(length))) << 6 | UInt32(second & 0x3F)
        for offset in 2..<max(length, 2) {
            let next = bytes[position + offset]
            guard next & 0xC0 == 0x80 else { return (nil, 1) }
            code = code << 6 | UInt32(next & 0x3F)
        }
        return (code, length)
    }

    /// Whether all bytes are UTF-8.
    static func isValid(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        var position = 0
        while position < bytes.count {
            let (code, length) = scalar(base, position, bytes.count)
            if code == nil { return false }
            position += length
        }
        return true
    }

    /// Length that a first byte announces, 0 if it can start no character.
    static func expectedLength(_ first: UInt8) -> Int {
        switch first {
        case 0..<0x80: 1
        case 0xC2..<0xE0: 2
        case 0xE0..<0xF0: 3
        case 0xF0..<0xF5: 4
        default: 0
        }
    }

    /// Whether a second byte may follow a first: no overlong forms, no surrogates, nothing above
    /// U+10FFFF.
    static func isSecond(_ second: UInt8, after first: UInt8) -> Bool {
        switch first {
        case 0xE0: second >= 0xA0 && second <= 0xBF
        case 0xED: second >= 0x80 && second <= 0x9F
        case 0xF0: second >= 0x90 && second <= 0xBF
        case 0xF4: second >= 0x80 && second <= 0x8F
        default: second & 0xC0 == 0x80
        }
    }

    /// Count of bytes at the end that may still grow into a character.
    static func incompleteTailLength(_ bytes: [UInt8]) -> Int {
        for length in 1..<4 where length <= bytes.count {
            let first = bytes[bytes.count - length]
            if first & 0xC0 == 0x80 { continue }
            guard expectedLength(first) > length else { return 0 }
            if length > 1, !isSecond(bytes[bytes.count - length + 1], after: first) { return 0 }
            return length
        }
        return 0
    }
}

/// GPT-2's printable stand-ins for the 256 byte values.
enum ByteAlphabet {
    /// The stand-in of each byte.
    static let scalars: [UInt32] = {
        var next: UInt32 = 256
        return (0..<256).map { byte in
            if (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
            {
                return UInt32(byte)
            }
            next += 1
            return next - 1
        }
    }()

    private static let byteOf: [Int16] = {
        var table = [Int16](repeating: -1, count: 324)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    /// Appends the bytes that a token's text stands for; false, with nothing kept, if a character
    /// is no stand-in.
    static func appendBytes(of text: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) -> Bool {
        let start = output.count
        guard let base = text.baseAddress else { return true }
        var position = 0
        while position < text.count {
            let (code, length) = UTF8Decoding.scalar(base, position, text.count)
            guard let code, code < 324, byteOf[Int(code)] >= 0 else {
                output.removeLast(output.count - start)
                return false
            }
            output.append(UInt8(truncatingIfNeeded: byteOf[Int(code)]))
            position += length
        }
        return true
    }
}
