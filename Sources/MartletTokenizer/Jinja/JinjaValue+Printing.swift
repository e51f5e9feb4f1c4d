// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Python's `str`, `repr` and `json.dumps` of values.
extension JinjaValue {
    /// `str(value)`.
    func printed() throws -> JinjaText {
        switch self {
        case .undefined: return JinjaText()
        case .string(let text): return text
        default:
            var output = JinjaText()
            try represent(into: &output, depth: 0)
            return output
        }
    }

    /// Appends `repr(value)`.
    func represent(into output: inout JinjaText, depth: Int) throws {
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        try JinjaLimits.check(characters: output.count)
        switch self {
        case .undefined: output.append("Undefined")
        case .none: output.append("None")
        case .bool(let flag): output.append(flag ? "True" : "False")
        case .int(let number): output.append(String(number))
        case .float(let number): output.append(PythonNumber.repr(number))
        case .string(let text): JinjaValue.quote(text, into: &output)
        case .list(let list):
            output.append("[")
            try representAll(list.items, into: &output, depth)
            output.append("]")
        case .tuple(let items):
            output.append("(")
            try representAll(items, into: &output, depth)
            output.append(items.count == 1 ? ",)" : ")")
        case .dict(let dict), .namespace(let dict):
            let isDict = if case .dict = self { true } else { false }
            output.append(isDict ? "{" : "<Namespace {")
            for (index, (key, value)) in zip(dict.keys, dict.values).enumerated() {
                if index > 0 { output.append(", ") }
                try key.represent(into: &output, depth: depth + 1)
                output.append(": ")
                try value.represent(into: &output, depth: depth + 1)
            }
            output.append(isDict ? "}" : "}>")
        case .range(let range): output.append(range.text)
        case .cycler: output.append("<Cycler>")
        case .loop(let loop): output.append("<LoopContext \(loop.index + 1)/\(loop.items.count)>")
        case .callable(let function): output.append("<function \(function.name)>")
        }
    }

    private func representAll(_ items: [JinjaValue], into output: inout JinjaText, _ depth: Int)
        throws
    {
        for (index, item) in items.enumerated() {
            if index > 0 { output.append(", ") }
            try item.represent(into: &output, depth: depth + 1)
        }
    }

    private static func quote(_ text: JinjaText, into output: inout JinjaText) {
        let hasSingle = text.scalars.contains("'")
        let quote: Unicode.Scalar = hasSingle && !text.scalars.contains("\"") ? "\"" : "'"
        output.append(quote, isUntrusted: false)
        output.append(
            text.mapped { scalar in
                switch scalar {
                case quote, "\\": return "\\" + String(scalar)
                case "\n": return "\\n"
                case "\r": return "\\r"
                case "\t": return "\\t"
                default: break
                }
                let value = scalar.value
                let isHidden = value != 0x20 && UnicodeClasses.shared(value).contains(.unprintable)
                if !isHidden { return String(scalar) }
                if value < 0x100 { return "\\x" + hexadecimal(value, 2) }
                return value < 0x10000
                    ? "\\u" + hexadecimal(value, 4) : "\\U" + hexadecimal(value, 8)
            })
        output.append(quote, isUntrusted: false)
    }

    static func hexadecimal(_ value: UInt32, _ width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(width - digits.count, 0)) + digits
    }
}

/// How `tojson` writes.
struct JinjaJSONStyle {
    var ensuresASCII = false
    var indent: JinjaText?
    var itemSeparator = JinjaText(", ")
    var keySeparator = JinjaText(": ")
    var sortsKeys = false
}

extension JinjaValue {
    /// Appends `json.dumps(value)`.
    func writeJSON(_ style: JinjaJSONStyle, into output: inout JinjaText, depth: Int = 0) throws {
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        try JinjaLimits.check(characters: output.count)
        switch self {
        case .none: output.append("null")
        case .bool(let flag): output.append(flag ? "true" : "false")
        case .int(let number): output.append(String(number))
        case .float(let number): output.append(PythonNumber.json(number))
        case .string(let text): JinjaValue.writeJSONString(text, style, into: &output)
        case .list(let list): try writeJSONArray(list.items, style, &output, depth)
        case .tuple(let items): try writeJSONArray(items, style, &output, depth)
        case .dict(let dict):
            var members = Array(zip(dict.keys, dict.values))
            if style.sortsKeys {
                try members.sort { try $0.0.isLess(than: $1.0) }
            }
            if members.isEmpty {
                output.append("{}")
            } else {
                output.append("{")
                for (index, (key, value)) in members.enumerated() {
                    if index > 0 { output.append(style.itemSeparator) }
                    JinjaValue.breakLine(style, &output, depth + 1)
                    try key.writeJSONKey(style, into: &output)
                    output.append(style.keySeparator)
                    try value.writeJSON(style, into: &output, depth: depth + 1)
                }
                JinjaValue.breakLine(style, &output, depth)
                output.append("}")
            }
        default:
            throw JinjaFailure.error("Object of type \(typeName) is not JSON serializable")
        }
    }

    private func writeJSONKey(_ style: JinjaJSONStyle, into output: inout JinjaText) throws {
        switch self {
        case .string(let text): JinjaValue.writeJSONString(text, style, into: &output)
        case .none, .bool, .int, .float:
            output.append("\"")
            try writeJSON(style, into: &output)
            output.append("\"")
        default:
            throw JinjaFailure.error("keys must be str, int, float, bool or None, not \(typeName)")
        }
    }

    private func writeJSONArray(
        _ items: [JinjaValue], _ style: JinjaJSONStyle, _ output: inout JinjaText, _ depth: Int
    ) throws {
        if items.isEmpty { return output.append("[]") }
        output.append("[")
        for (index, item) in items.enumerated() {
            if index > 0 { output.append(style.itemSeparator) }
            JinjaValue.breakLine(style, &output, depth + 1)
            try item.writeJSON(style, into: &output, depth: depth + 1)
        }
        JinjaValue.breakLine(style, &output, depth)
        output.append("]")
    }

    private static func breakLine(_ style: JinjaJSONStyle, _ output: inout JinjaText, _ depth: Int)
    {
        guard let indent = style.indent else { return }
        output.append("\n")
        for _ in 0..<depth { output.append(indent) }
    }

    private static func writeJSONString(
        _ text: JinjaText, _ style: JinjaJSONStyle, into output: inout JinjaText
    ) {
        output.append("\"")
        output.append(
            text.mapped { scalar in
                switch scalar {
                case "\"": return "\\\""
                case "\\": return "\\\\"
                case "\n": return "\\n"
                case "\r": return "\\r"
                case "\t": return "\\t"
                case "\u{8}": return "\\b"
                case "\u{c}": return "\\f"
                default: break
                }
                if scalar.value < 0x20 { return "\\u" + hexadecimal(scalar.value, 4) }
                if style.ensuresASCII, scalar.value > 0x7E {
                    return scalar.utf16.map { "\\u" + hexadecimal(UInt32($0), 4) }.joined()
                }
                return String(scalar)
            })
        output.append("\"")
    }
}

/// Numbers as Python writes them.
enum PythonNumber {
    /// `repr(float)`: the shortest text that reads back, with an exponent below -4 and from 16 on.
    static func repr(_ value: Double) -> String {
        if value.isNaN { return "nan" }
        if value.isInfinite { return value < 0 ? "-inf" : "inf" }
        if value == 0 { return value.sign == .minus ? "-0.0" : "0.0" }
        // Swift finds the same shortest digits, only their layout differs.
        var text = Substring(value.magnitude.description)
        var exponent = 0
        if let mark = text.firstIndex(where: { $0 == "e" || $0 == "E" }) {
            exponent = Int(text[text.index(after: mark)...].replacing("+", with: "")) ?? 0
            text = text[..<mark]
        }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        var digits = Array((parts[0] + (parts.count > 1 ? parts[1] : "")).utf8)
        var point = parts[0].utf8.count + exponent
        while digits.count > 1, digits.first == UInt8(ascii: "0") {
            digits.removeFirst()
            point -= 1
        }
        while digits.count > 1, digits.last == UInt8(ascii: "0") { digits.removeLast() }
        let all = String(decoding: digits, as: UTF8.self)
        let sign = value < 0 ? "-" : ""
        if point > 16 || point < -3 {
            let power = point - 1
            let tail = digits.count > 1 ? "." + String(decoding: digits[1...], as: UTF8.self) : ""
            let magnitude = String(abs(power))
            return sign + String(decoding: digits[..<1], as: UTF8.self) + tail + "e"
                + (power < 0 ? "-" : "+")
                + (magnitude.utf8.count < 2 ? "0" : "") + magnitude
        }
        if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + all }
        if point >= digits.count {
            return sign + all + String(repeating: "0", count: point - digits.count) + ".0"
        }
        return sign + String(decoding: digits[..<point], as: UTF8.self) + "."
            + String(decoding: digits[point...], as: UTF8.self)
    }

    /// `json.dumps(float)`.
    static func json(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
        return repr(value)
    }
}
