// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JSONValue {
    /// The document as text: the same value always gives the same bytes.
    ///
    /// - Parameter pretty: Two-space indentation, one member a line.
    public func serialized(pretty: Bool = false) -> String {
        var text = ""
        write(to: &text, indent: pretty ? 0 : nil)
        return text
    }

    private func write(to text: inout String, indent: Int?) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .int(let value): text += String(value)
        case .double(let value): text += value.isFinite ? "\(value)" : "null"
        case .string(let value): Self.quote(value, to: &text)
        case .array(let elements):
            Self.list("[", "]", elements.count, indent, &text) { index, inner, text in
                elements[index].write(to: &text, indent: inner)
            }
        case .object(let object):
            Self.list("{", "}", object.count, indent, &text) { index, inner, text in
                Self.quote(object.keys[index], to: &text)
                text += indent == nil ? ":" : ": "
                object.values[index].write(to: &text, indent: inner)
            }
        }
    }

    private static func list(
        _ open: String, _ close: String, _ count: Int, _ indent: Int?, _ text: inout String,
        _ element: (Int, Int?, inout String) -> Void
    ) {
        text += open
        for index in 0..<count {
            if index > 0 { text += "," }
            if let indent { text += "\n" + String(repeating: "  ", count: indent + 1) }
            element(index, indent.map { $0 + 1 }, &text)
        }
        if let indent, count > 0 { text += "\n" + String(repeating: "  ", count: indent) }
        text += close
    }

    private static func quote(_ value: String, to text: inout String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\u{0}"..<"\u{20}":
                let hex = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}
