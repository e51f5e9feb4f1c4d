// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Walks over a JSON text without building values, for files that are large and mostly one table.
///
/// Values that are wanted whole are parsed from their range, up to a limit of bytes.
struct JSONCursor {
    private let bytes: UnsafeBufferPointer<UInt8>
    private let name: String
    private(set) var position = 0
    private static let depthLimit = 128

    init(_ bytes: UnsafeRawBufferPointer, name: String) {
        self.bytes = bytes.bindMemory(to: UInt8.self)
        self.name = name
    }

    /// A failure at the position.
    func failure(_ what: String) -> MartletError {
        MartletError(
            .corrupt, "\(name): \(what) at byte \(position) of \(bytes.count)",
            context: ["offset": "\(position)"])
    }

    /// The next byte that is no white space; 0 at the end.
    mutating func peek() -> UInt8 {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x0A, 0x0D, 0x09: position += 1
            case let byte: return byte
            }
        }
        return 0
    }

    private mutating func take(_ character: Character) -> Bool {
        guard peek() == character.asciiValue else { return false }
        position += 1
        return true
    }

    mutating func expect(_ character: Character) throws {
        guard take(character) else { throw failure("expected '\(character)'") }
    }

    mutating func expectEnd() throws {
        guard peek() == 0, position == bytes.count else { throw failure("text after the value") }
    }

    /// Visits the members of an object; the closure must consume each value.
    mutating func members(_ body: (inout JSONCursor, UnsafeBufferPointer<UInt8>) throws -> Void)
        throws
    {
        try expect("{")
        if take("}") { return }
        var scratch: [UInt8] = []
        repeat {
            _ = peek()
            try string(into: &scratch)
            try expect(":")
            try scratch.withUnsafeBufferPointer { try body(&self, $0) }
        } while take(",")
        try expect("}")
    }

    /// Visits the elements of an array; the closure must consume each.
    mutating func elements(_ body: (inout JSONCursor) throws -> Void) throws {
        try expect("[")
        if take("]") { return }
        repeat { try body(&self) } while take(",")
        try expect("]")
    }

    /// Reads a string.
    mutating func string(into output: inout [UInt8]) throws {
        output.removeAll(keepingCapacity: true)
        guard peek() == UInt8(ascii: "\"") else { throw failure("expected a string") }
        let start = position
        try skipString()
        let content = UnsafeBufferPointer(rebasing: bytes[start + 1..<position - 1])
        if content.contains(UInt8(ascii: "\\")) {
            // The parser of whole values knows the escapes.
            let end = position
            position = start
            guard case .string(let text) = try parsed(start, end) else { return }
            output += text.utf8
            position = end
        } else {
            guard content.allSatisfy({ $0 >= 0x20 }), UTF8Decoding.isValid(content) else {
                throw failure("a string with a control character, or that is no UTF-8,")
            }
            output.append(contentsOf: content)
        }
    }

    /// Reads an integer.
    mutating func integer() throws -> Int {
        let first = peek()
        guard first == UInt8(ascii: "-") || 0x30...0x39 ~= first else {
            throw failure("expected an integer")
        }
        let start = position
        position += 1
        while position < bytes.count, 0x30...0x39 ~= bytes[position] { position += 1 }
        let text = UnsafeBufferPointer(rebasing: bytes[start..<position])
        guard position - start < 20, let number = Int(String(decoding: text, as: UTF8.self)) else {
            throw failure("an integer beyond 64 bits")
        }
        return number
    }

    /// Parses the value at the position.
    ///
    /// - Parameter limit: Most bytes it may have.
    mutating func value(limit: Int) throws -> JSONValue {
        _ = peek()
        let start = position
        try skip()
        guard position - start <= limit else {
            throw MartletError(
                .limitExceeded,
                "\(name): the value at byte \(start) has \(position - start) bytes, the limit is "
                    + "\(limit)", context: ["offset": "\(start)"])
        }
        return try parsed(start, position)
    }

    private func parsed(_ start: Int, _ end: Int) throws -> JSONValue {
        do {
            return try JSONValue.parse(
                UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[start..<end]),
                name: name)
        } catch let error as MartletError {
            throw error.adding("value", "\(start)")
        }
    }

    /// Steps over a value.
    mutating func skip() throws {
        var depth = 0
        repeat {
            switch peek() {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                depth += 1
                guard depth <= Self.depthLimit else {
                    throw failure("nested deeper than \(Self.depthLimit) levels")
                }
                position += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard depth > 0 else { throw failure("no value can begin here") }
                depth -= 1
                position += 1
            case UInt8(ascii: "\""): try skipString()
            case UInt8(ascii: ","), UInt8(ascii: ":"):
                guard depth > 0 else { throw failure("no value can begin here") }
                position += 1
            case let byte where isWordByte(byte):
                while position < bytes.count, isWordByte(bytes[position]) { position += 1 }
            default: throw failure(position < bytes.count ? "no JSON" : "the text ends early")
            }
        } while depth > 0
    }

    private func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: byte == UInt8(ascii: "-") || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".")
        }
    }

    private mutating func skipString() throws {
        let start = position
        position += 1
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                position += 1
                return
            case UInt8(ascii: "\\"): position += 2
            default: position += 1
            }
        }
        position = start
        throw failure("a string has no end")
    }
}
