// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JSONValue {
    /// The text of this value; equal values give equal texts.
    ///
    /// Members keep their order, non-ASCII characters are written as they are. Numbers that JSON
    /// cannot hold (infinity, NaN) are written as `null`.
    ///
    /// - Parameter pretty: Whether to indent by two spaces, one member or element a line.
    public func serialized(pretty: Bool = false) -> String {
        var writer = JSONWriter(isPretty: pretty)
        writer.write(self, indent: 0)
        return String(decoding: writer.bytes, as: UTF8.self)
    }
}

/// Appends the text of values to bytes.
struct JSONWriter {
    let isPretty: Bool
    var bytes: [UInt8] = []

    init(isPretty: Bool) { self.isPretty = isPretty }

    mutating func write(_ value: JSONValue, indent: Int) {
        switch value {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .int(let value): bytes += String(value).utf8
        case .double(let value): bytes += (value.isFinite ? "\(value)" : "null").utf8
        case .string(let value): write(value)
        case .array(let values):
            bytes.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                separate(isFirst: index == 0, indent: indent + 1)
                write(value, indent: indent + 1)
            }
            close(isEmpty: values.isEmpty, indent: indent, with: UInt8(ascii: "]"))
        case .object(let object):
            bytes.append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                separate(isFirst: index == 0, indent: indent + 1)
                write(member.key)
                bytes.append(UInt8(ascii: ":"))
                if isPretty { bytes.append(UInt8(ascii: " ")) }
                write(member.value, indent: indent + 1)
            }
            close(isEmpty: object.members.isEmpty, indent: indent, with: UInt8(ascii: "}"))
        }
    }

    private mutating func separate(isFirst: Bool, indent: Int) {
        if !isFirst { bytes.append(UInt8(ascii: ",")) }
        if isPretty { newLine(indent) }
    }

    private mutating func close(isEmpty: Bool, indent: Int, with end: UInt8) {
        if isPretty && !isEmpty { newLine(indent) }
        bytes.append(end)
    }

    private mutating func newLine(_ indent: Int) {
        bytes.append(UInt8(ascii: "\n"))
        bytes += repeatElement(UInt8(ascii: " "), count: 2 * indent)
    }

    private mutating func write(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): bytes += [UInt8(ascii: "\\"), byte]
            case UInt8(ascii: "\\"): bytes += [byte, byte]
            case 0x0a: bytes += "\\n".utf8
            case 0x0d: bytes += "\\r".utf8
            case 0x09: bytes += "\\t".utf8
            case 0..<0x20:
                let digits = String(byte, radix: 16)
                bytes += ((byte < 16 ? "\\u000" : "\\u00") + digits).utf8
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}
