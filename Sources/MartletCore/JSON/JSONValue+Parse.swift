// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JSONValue {
    /// Reads a document (RFC 8259, UTF-8).
    ///
    /// - Parameters:
    ///   - bytes: The whole document.
    ///   - name: What it is, for messages.
    ///   - depthLimit: Deepest nesting accepted.
    ///   - refusesDuplicateKeys: Whether a repeated key is an error; otherwise the last one wins.
    /// - Throws: `MartletError` `.corrupt` with the byte offset.
    public static func parse(
        _ bytes: ByteView, name: String = "JSON", depthLimit: Int = 128,
        refusesDuplicateKeys: Bool = false
    ) throws -> JSONValue {
        try bytes.withUnsafeBytes { buffer in
            var parser = JSONParser(
                bytes: buffer, name: name, depthLimit: depthLimit,
                refusesDuplicateKeys: refusesDuplicateKeys)
            return try parser.document()
        }
    }

    /// Reads a document held as an array of bytes.
    public static func parse(_ bytes: [UInt8], name: String = "JSON") throws -> JSONValue {
        try parse(ByteView(bytes), name: name)
    }

    /// Reads a document held as text.
    public static func parse(_ text: String, name: String = "JSON") throws -> JSONValue {
        try parse(ByteView(Array(text.utf8)), name: name)
    }
}

/// A recursive-descent reader over bytes.
private struct JSONParser {
    let bytes: UnsafeRawBufferPointer
    let name: String
    let depthLimit: Int
    let refusesDuplicateKeys: Bool
    var position = 0

    init(bytes: UnsafeRawBufferPointer, name: String, depthLimit: Int, refusesDuplicateKeys: Bool) {
        self.bytes = bytes
        self.name = name
        self.depthLimit = depthLimit
        self.refusesDuplicateKeys = refusesDuplicateKeys
    }

    func failure(_ message: String) -> MartletError {
        MartletError(.corrupt, "\(name): \(message) at byte \(position)")
    }

    mutating func document() throws -> JSONValue {
        let value = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw failure("text after the value") }
        return value
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x0a, 0x0d, 0x09].contains(bytes[position]) {
            position += 1
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        skipSpace()
        guard position < bytes.count, bytes[position] == byte else { return false }
        position += 1
        return true
    }

    private mutating func takeWord(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        let count = word.utf8CodeUnitCount
        guard bytes.count - position >= count,
            (0..<count).allSatisfy({ bytes[position + $0] == word.utf8Start[$0] })
        else { throw failure("unexpected word") }
        position += count
        return value
    }

    private mutating func value(depth: Int) throws -> JSONValue {
        guard depth <= depthLimit else { throw failure("nesting deeper than \(depthLimit)") }
        skipSpace()
        guard position < bytes.count else { throw failure("unexpected end") }
        switch bytes[position] {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try takeWord("true", .bool(true))
        case UInt8(ascii: "f"): return try takeWord("false", .bool(false))
        case UInt8(ascii: "n"): return try takeWord("null", .null)
        default: return try number()
        }
    }

    private mutating func array(depth: Int) throws -> JSONValue {
        position += 1
        var elements: [JSONValue] = []
        if take(UInt8(ascii: "]")) { return .array(elements) }
        repeat { elements.append(try value(depth: depth + 1)) } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw failure("expected ',' or ']'") }
        return .array(elements)
    }

    private mutating func object(depth: Int) throws -> JSONValue {
        position += 1
        var object = JSONObject()
        if take(UInt8(ascii: "}")) { return .object(object) }
        repeat {
            skipSpace()
            guard position < bytes.count, bytes[position] == UInt8(ascii: "\"") else {
                throw failure("expected a key")
            }
            let key = try string()
            guard take(UInt8(ascii: ":")) else { throw failure("expected ':'") }
            if refusesDuplicateKeys, object[key] != nil {
                throw failure("key '\(key)' is given twice")
            }
            object[key] = try value(depth: depth + 1)
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw failure("expected ',' or '}'") }
        return .object(object)
    }

    private mutating func number() throws -> JSONValue {
        let start = position
        var isInteger = true
        if bytes[position] == UInt8(ascii: "-") { position += 1 }
        let digitsStart = position
        func isDigit(_ at: Int) -> Bool {
            at < bytes.count && bytes[at] >= UInt8(ascii: "0") && bytes[at] <= UInt8(ascii: "9")
        }
        while isDigit(position) { position += 1 }
        guard position > digitsStart,
            bytes[digitsStart] != UInt8(ascii: "0") || position == digitsStart + 1
        else { throw failure("unexpected character") }
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            guard isDigit(position) else { throw failure("expected a digit") }
            while isDigit(position) { position += 1 }
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            position += 1
            if position < bytes.count, [0x2b, 0x2d].contains(bytes[position]) { position += 1 }
            guard isDigit(position) else { throw failure("expected a digit") }
            while isDigit(position) { position += 1 }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger, let integer = Int(text) { return .int(integer) }
        guard let number = Double(text), number.isFinite else { throw failure("number out of range") }
        return .double(number)
    }

    private mutating func string() throws -> String {
        position += 1
        let start = position
        // Most strings have no escape: one scan, one copy.
        while position < bytes.count, bytes[position] != 0x22, bytes[position] != 0x5c {
            guard bytes[position] >= 0x20 else { throw failure("control character in a string") }
            position += 1
        }
        guard position < bytes.count else { throw failure("string without end") }
        if bytes[position] == 0x22 {
            let text = try utf8(bytes[start..<position])
            position += 1
            return text
        }
        var content = [UInt8](bytes[start..<position])
        while position < bytes.count {
            let byte = bytes[position]
            position += 1
            switch byte {
            case 0x22: return try content.withUnsafeBytes { try utf8($0[...]) }
            case 0x5c: try escape(into: &content)
            case 0..<0x20: throw failure("control character in a string")
            default: content.append(byte)
            }
        }
        throw failure("string without end")
    }

    private func utf8(_ slice: Slice<UnsafeRawBufferPointer>) throws -> String {
        guard let text = String(validating: slice, as: UTF8.self) else {
            throw failure("text is not UTF-8")
        }
        return text
    }

    private mutating func escape(into content: inout [UInt8]) throws {
        guard position < bytes.count else { throw failure("string without end") }
        let byte = bytes[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): content.append(byte)
        case UInt8(ascii: "b"): content.append(0x08)
        case UInt8(ascii: "f"): content.append(0x0c)
        case UInt8(ascii: "n"): content.append(0x0a)
        case UInt8(ascii: "r"): content.append(0x0d)
        case UInt8(ascii: "t"): content.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if code & 0xfc00 == 0xd800, position + 1 < bytes.count, bytes[position] == 0x5c,
                bytes[position + 1] == UInt8(ascii: "u")
            {
                let mark = position
                position += 2
                let low = try hexadecimal()
                if low & 0xfc00 == 0xdc00 {
                    code = 0x10000 + ((code & 0x3ff) << 10) + (low & 0x3ff)
                } else {
                    position = mark
                }
            }
            // A lone surrogate has no UTF-8 form.
            content += Array(String(Unicode.Scalar(code) ?? "\u{fffd}").utf8)
        default: throw failure("unknown escape")
        }
    }

    private mutating func hexadecimal() throws -> UInt32 {
        guard bytes.count - position >= 4 else { throw failure("string without end") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
                throw failure("expected four hexadecimal digits")
            }
            code = code * 16 + UInt32(digit)
            position += 1
        }
        return code
    }
}
