// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A scanner over bytes; every read checks the end, every failure names its offset.
struct JSONParser {
    let bytes: UnsafeRawBufferPointer
    let count: Int
    let name: String
    let depthLimit: Int
    let refusesDuplicateKeys: Bool
    let valueLimit: Int
    var position = 0
    private var valueCount = 0

    init(
        bytes: UnsafeRawBufferPointer, name: String, depthLimit: Int, refusesDuplicateKeys: Bool,
        valueLimit: Int
    ) {
        self.bytes = bytes
        self.count = bytes.count
        self.name = name
        self.depthLimit = depthLimit
        self.refusesDuplicateKeys = refusesDuplicateKeys
        self.valueLimit = valueLimit
    }

    /// The byte at the position; 0, which no JSON token contains, at the end.
    @inline(__always)
    func peek() -> UInt8 { position < count ? bytes[position] : 0 }

    mutating func parse() throws -> JSONValue {
        let value = try parseValue(depth: 0)
        skipSpace()
        if position < count { throw failure("text after the value") }
        return value
    }

    @inline(__always)
    mutating func skipSpace() {
        while position < count {
            let byte = bytes[position]
            guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return }
            position += 1
        }
    }

    private mutating func parseValue(depth: Int) throws -> JSONValue {
        skipSpace()
        valueCount += 1
        if valueCount > valueLimit { throw failure("more than \(valueLimit) values") }
        switch peek() {
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "{"): return try parseObject(depth: depth + 1)
        case UInt8(ascii: "["): return try parseArray(depth: depth + 1)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try parseNumber()
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        default:
            throw failure(position < count ? "no value can begin here" : "the text ends early")
        }
    }

    private mutating func parseWord(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        let length = word.utf8CodeUnitCount
        guard length <= count - position,
            (0..<length).allSatisfy({ bytes[position + $0] == word.utf8Start[$0] })
        else { throw failure("expected \(word)") }
        position += length
        return value
    }

    private mutating func parseArray(depth: Int) throws -> JSONValue {
        if depth > depthLimit { throw failure("nested deeper than \(depthLimit) levels") }
        position += 1
        skipSpace()
        var values: [JSONValue] = []
        if peek() == UInt8(ascii: "]") {
            position += 1
            return .array(values)
        }
        while true {
            values.append(try parseValue(depth: depth))
            skipSpace()
            switch peek() {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "]"):
                position += 1
                return .array(values)
            default: throw failure("expected , or ] in an array")
            }
        }
    }

    private mutating func parseObject(depth: Int) throws -> JSONValue {
        if depth > depthLimit { throw failure("nested deeper than \(depthLimit) levels") }
        position += 1
        skipSpace()
        var object = JSONObject()
        if peek() == UInt8(ascii: "}") {
            position += 1
            return .object(object)
        }
        while true {
            skipSpace()
            guard peek() == UInt8(ascii: "\"") else { throw failure("expected a name in quotes") }
            let start = position
            let key = try parseString()
            skipSpace()
            guard peek() == UInt8(ascii: ":") else { throw failure("expected : after a name") }
            position += 1
            let value = try parseValue(depth: depth)
            if !object.append(key, value) {
                if refusesDuplicateKeys {
                    throw failure("duplicate key \(Self.excerpt(key))", at: start)
                }
                object[key] = value
            }
            skipSpace()
            switch peek() {
            case UInt8(ascii: ","): position += 1
            case UInt8(ascii: "}"):
                position += 1
                return .object(object)
            default: throw failure("expected , or } in an object")
            }
        }
    }

    private mutating func parseNumber() throws -> JSONValue {
        let start = position
        let isNegative = peek() == UInt8(ascii: "-")
        if isNegative { position += 1 }
        var magnitude = 0
        var fits = true
        let digits = position
        while case let digit = peek() &- 0x30, digit < 10 {
            let (product, overflow) = magnitude.multipliedReportingOverflow(by: 10)
            // Negative sums reach Int.min, positive ones Int.max.
            let (sum, overflow2) =
                isNegative
                ? product.subtractingReportingOverflow(Int(digit))
                : product.addingReportingOverflow(Int(digit))
            if overflow || overflow2 { fits = false }
            magnitude = sum
            position += 1
        }
        if position == digits { throw failure("expected a digit") }
        if position - digits > 1, bytes[digits] == UInt8(ascii: "0") {
            throw failure("a number begins with 0", at: digits)
        }
        var isInteger = true
        if peek() == UInt8(ascii: ".") {
            isInteger = false
            position += 1
            try skipDigits()
        }
        if peek() | 0x20 == UInt8(ascii: "e") {
            isInteger = false
            position += 1
            if peek() == UInt8(ascii: "+") || peek() == UInt8(ascii: "-") { position += 1 }
            try skipDigits()
        }
        if isInteger && fits && !(isNegative && magnitude == 0) { return .int(magnitude) }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        guard let value = Double(text), value.isFinite else {
            throw failure("a number exceeds the range of a double", at: start)
        }
        return .double(value)
    }

    private mutating func skipDigits() throws {
        let start = position
        while case let digit = peek() &- 0x30, digit < 10 { position += 1 }
        if position == start { throw failure("expected a digit") }
    }

    /// A failure at an offset (the position unless given), with line and column.
    func failure(_ what: String, at offset: Int? = nil) -> MartletError {
        let offset = min(offset ?? position, count)
        var line = 1
        var lineStart = 0
        for index in 0..<offset where bytes[index] == 0x0a {
            line += 1
            lineStart = index + 1
        }
        return MartletError(
            .corrupt,
            "\(name): \(what) at byte \(offset) (line \(line), column \(offset - lineStart + 1))",
            context: ["offset": String(offset)])
    }

    /// The beginning of a text from outside, for messages.
    static func excerpt(_ text: String) -> String {
        text.utf8.count <= 64 ? "\"\(text)\"" : "\"\(text.prefix(48))...\""
    }
}
