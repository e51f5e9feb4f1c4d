// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// `%` formats and `str.format` of Python, the parts that templates use.
enum PythonFormat {
    /// Fixed digits after the point, correctly rounded.
    static func fixed(_ value: Double, _ digitCount: Int) -> String {
        if !value.isFinite { return PythonNumber.repr(value) }
        var buffer = [CChar](repeating: 0, count: 512 + min(max(digitCount, 0), 400))
        let written = withVaList([Int32(min(max(digitCount, 0), 400)), value]) {
            vsnprintf(&buffer, buffer.count, "%.*f", $0)
        }
        guard written > 0, written < buffer.count else { return PythonNumber.repr(value) }
        return String(
            decoding: buffer[..<Int(written)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// `format % arguments` with `%s %r %d %i %f %.Nf %x %%`, flags `0` and `-`, and a width.
    static func percent(_ format: JinjaText, _ arguments: [JinjaValue]) throws -> JinjaText {
        var output = JinjaText()
        var next = 0
        var index = 0
        while index < format.count {
            let scalar = format.scalars[index]
            guard scalar == "%" else {
                output.append(scalar, isUntrusted: format.isUntrusted(at: index))
                index += 1
                continue
            }
            index += 1
            var flags = Set<Unicode.Scalar>()
            while index < format.count, "0-+ ".unicodeScalars.contains(format.scalars[index]) {
                flags.insert(format.scalars[index])
                index += 1
            }
            func number() throws -> Int? {
                var value: Int?
                while index < format.count, ("0"..."9").contains(format.scalars[index]) {
                    value = (value ?? 0) * 10 + Int(format.scalars[index].value - 48)
                    index += 1
                    guard value ?? 0 < 10_000 else {
                        throw JinjaFailure.error("a format's width is beyond 9999")
                    }
                }
                return value
            }
            let width = try number() ?? 0
            var precision: Int?
            if index < format.count, format.scalars[index] == "." {
                index += 1
                precision = try number() ?? 0
            }
            guard index < format.count else { throw JinjaFailure.error("incomplete format") }
            let kind = format.scalars[index]
            index += 1
            if kind == "%" {
                output.append("%")
                continue
            }
            guard next < arguments.count else {
                throw JinjaFailure.error("not enough arguments for format string")
            }
            var text = try converted(arguments[next], kind, precision)
            next += 1
            if kind != "s", kind != "r", text.scalars.first != "-" {
                if flags.contains("+") {
                    text = joined("+", text)
                } else if flags.contains(" ") {
                    text = joined(" ", text)
                }
            }
            let padding = max(width - text.count, 0)
            if flags.contains("-") {
                output.append(text)
                output.append(String(repeating: " ", count: padding))
            } else if flags.contains("0"), kind != "s", kind != "r" {
                let hasSign = text.scalars.first == "-" || text.scalars.first == "+"
                output.append(text.slice(0..<(hasSign ? 1 : 0)))
                output.append(String(repeating: "0", count: padding))
                output.append(text.slice((hasSign ? 1 : 0)..<text.count))
            } else {
                output.append(String(repeating: " ", count: padding))
                output.append(text)
            }
            try JinjaLimits.check(characters: output.count)
        }
        guard next == arguments.count else {
            throw JinjaFailure.error("not all arguments converted during string formatting")
        }
        return output
    }

    private static func joined(_ prefix: String, _ text: JinjaText) -> JinjaText {
        var result = JinjaText(prefix)
        result.append(text)
        return result
    }

    private static func converted(
        _ value: JinjaValue, _ kind: Unicode.Scalar, _ precision: Int?
    ) throws -> JinjaText {
        switch kind {
        case "s", "r":
            var text = JinjaText()
            if kind == "s" {
                text = try value.printed()
            } else {
                try value.represent(into: &text, depth: 0)
            }
            if let precision, precision < text.count { text = text.slice(0..<precision) }
            return text
        case "d", "i":
            if let number = value.integer { return JinjaText(String(number)) }
            if case .float(let number) = value,
                let whole = Int(exactly: number.rounded(.towardZero))
            {
                return JinjaText(String(whole))
            }
            throw JinjaFailure.error(
                "%\(kind) format: a real number is required, not \(value.typeName)")
        case "f", "F":
            guard let number = value.number else {
                throw JinjaFailure.error("must be real number, not \(value.typeName)")
            }
            return JinjaText(fixed(number, precision ?? 6))
        case "x", "X", "o":
            guard let number = value.integer else {
                throw JinjaFailure.error(
                    "%\(kind) format: an integer is required, not \(value.typeName)")
            }
            return JinjaText(String(number, radix: kind == "o" ? 8 : 16, uppercase: kind == "X"))
        default: throw JinjaFailure.error("unsupported format character '\(kind)'")
        }
    }

    /// `str.format` with `{}`, `{0}`, `{name}`, `{{` and `}}`.
    static func braces(_ format: JinjaText, _ arguments: JinjaArguments) throws -> JinjaText {
        var output = JinjaText()
        var automatic = 0
        var index = 0
        while index < format.count {
            let scalar = format.scalars[index]
            let isDoubled = index + 1 < format.count && format.scalars[index + 1] == scalar
            guard scalar == "{" || scalar == "}", !isDoubled else {
                output.append(scalar, isUntrusted: format.isUntrusted(at: index))
                index += scalar == "{" || scalar == "}" ? 2 : 1
                continue
            }
            guard scalar == "{", let end = format.find(JinjaText("}"), from: index) else {
                throw JinjaFailure.error("single '\(scalar)' encountered in format string")
            }
            let field = format.slice(index + 1..<end).string
            index = end + 1
            var value: JinjaValue?
            if field.isEmpty || Int(field) != nil {
                let place = Int(field) ?? automatic
                automatic += field.isEmpty ? 1 : 0
                if place >= 0, place < arguments.positional.count {
                    value = arguments.positional[place]
                }
            } else {
                value = arguments.named.first { $0.name == field }?.value
            }
            guard let value else {
                throw JinjaFailure.error(
                    "format field '{\(field)}' has no argument or is not supported")
            }
            output.append(try value.printed())
            try JinjaLimits.check(characters: output.count)
        }
        return output
    }
}
