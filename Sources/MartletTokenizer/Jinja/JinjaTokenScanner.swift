// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reads one token inside a tag.
struct JinjaTokenScanner {
    let source: [Unicode.Scalar]
    var position: Int
    let line: Int

    private static let symbols = [
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{",
        "}", ">", "<",
        "=", ".", ":", "|", ",", ";",
    ]

    mutating func next() throws -> JinjaToken.Kind {
        let first = source[position]
        if isDigit(first) { return try number() }
        if first == "\"" || first == "'" { return try string(first) }
        if first == "_" || first.properties.isXIDStart {
            let start = position
            while position < source.count,
                source[position] == "_" || source[position].properties.isXIDContinue
            {
                position += 1
            }
            return .name(text(start..<position))
        }
        for symbol in JinjaTokenScanner.symbols {
            let scalars = Array(symbol.unicodeScalars)
            if source.count - position >= scalars.count,
                Array(source[position..<position + scalars.count]) == scalars
            {
                position += scalars.count
                return .symbol(symbol)
            }
        }
        throw JinjaFailure.syntax("unexpected character '\(first)'", line: line)
    }

    private func text(_ range: Range<Int>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: source[range])
        return String(view)
    }

    private func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }

    private mutating func digits(_ radix: Int = 10) -> String {
        var result = ""
        while position < source.count {
            let scalar = source[position]
            let isUnderscore =
                scalar == "_" && position + 1 < source.count
                && Character(source[position + 1]).hexDigitValue ?? 99 < radix
            if isUnderscore {
                position += 1
                continue
            }
            guard scalar.isASCII, let value = Character(scalar).hexDigitValue, value < radix else {
                break
            }
            result.unicodeScalars.append(scalar)
            position += 1
        }
        return result
    }

    private mutating func number() throws -> JinjaToken.Kind {
        let start = position
        if source[start] == "0", start + 1 < source.count {
            let radixes: [Unicode.Scalar: Int] = ["x": 16, "X": 16, "o": 8, "O": 8, "b": 2, "B": 2]
            if let radix = radixes[source[start + 1]] {
                position += 2
                guard let value = Int(digits(radix), radix: radix) else {
                    throw JinjaFailure.syntax("a number is wrong or beyond 64 bits", line: line)
                }
                return .int(value)
            }
        }
        var literal = digits()
        // After a dot a number is an index, as in `a.0.1`.
        let isIndex = start > 0 && source[start - 1] == "."
        var isFloat = false
        if !isIndex, position + 1 < source.count, source[position] == ".",
            isDigit(source[position + 1])
        {
            position += 1
            literal += "." + digits()
            isFloat = true
        }
        if !isIndex, position < source.count, source[position] == "e" || source[position] == "E" {
            var cursor = position + 1
            if cursor < source.count, source[cursor] == "+" || source[cursor] == "-" { cursor += 1 }
            if cursor < source.count, isDigit(source[cursor]) {
                literal += text(position..<cursor)
                position = cursor
                literal += digits()
                isFloat = true
            }
        }
        if isFloat, let value = Double(literal) { return .float(value) }
        guard let value = Int(literal) else {
            throw JinjaFailure.syntax("integer \(literal) is beyond 64 bits", line: line)
        }
        return .int(value)
    }

    private mutating func string(_ quote: Unicode.Scalar) throws -> JinjaToken.Kind {
        position += 1
        var view = String.UnicodeScalarView()
        while position < source.count {
            let scalar = source[position]
            position += 1
            if scalar == quote { return .string(String(view)) }
            guard scalar == "\\" else {
                view.append(scalar)
                continue
            }
            guard position < source.count else { break }
            try escape(into: &view)
        }
        throw JinjaFailure.syntax("a string has no end", line: line)
    }

    private mutating func escape(into view: inout String.UnicodeScalarView) throws {
        let scalar = source[position]
        position += 1
        let simple: [Unicode.Scalar: Unicode.Scalar] = [
            "n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", "\"": "\"", "a": "\u{7}",
            "b": "\u{8}",
            "f": "\u{c}", "v": "\u{b}",
        ]
        if let plain = simple[scalar] { return view.append(plain) }
        if scalar == "\n" { return }
        let widths: [Unicode.Scalar: Int] = ["x": 2, "u": 4, "U": 8]
        if let width = widths[scalar] {
            guard source.count - position >= width,
                let value = UInt32(text(position..<position + width), radix: 16),
                let decoded = Unicode.Scalar(value)
            else { throw JinjaFailure.syntax("a wrong \\\(scalar) escape", line: line) }
            position += width
            return view.append(decoded)
        }
        if ("0"..."7").contains(scalar) {
            var value = scalar.value - 48
            var count = 1
            while count < 3, position < source.count, ("0"..."7").contains(source[position]) {
                value = value * 8 + source[position].value - 48
                position += 1
                count += 1
            }
            if let decoded = Unicode.Scalar(value) { view.append(decoded) }
            return
        }
        if scalar == "N" { throw JinjaFailure.unsupported("the escape \\N", line: line) }
        view.append("\\")
        view.append(scalar)
    }
}
