// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A token of a template's source.
struct JinjaToken: Sendable {
    /// What the token is.
    enum Kind: Equatable, Sendable {
        case data(String)
        case outputBegin, outputEnd, tagBegin, tagEnd
        case name(String)
        case string(String)
        case int(Int)
        case float(Double)
        case symbol(String)
        case end
    }

    var kind: Kind
    /// Line of the source, from 1.
    var line: Int
}

/// Cuts a template's source into tokens: `trim_blocks`, `lstrip_blocks`, one newline at the end
/// dropped.
struct JinjaLexer {
    private let source: [Unicode.Scalar]
    private var position = 0
    private var line = 1
    private var tokens: [JinjaToken] = []
    /// Whether what was read last ended a line, so that blanks before a tag begin one.
    private var startsLine = true

    /// - Throws: `corrupt` naming the line.
    static func tokens(of source: String) throws -> [JinjaToken] {
        var lexer = JinjaLexer(source)
        try lexer.run()
        return lexer.tokens
    }

    private init(_ text: String) {
        var scalars: [Unicode.Scalar] = []
        var wasReturn = false
        for scalar in text.unicodeScalars {
            if scalar == "\n", wasReturn {
                wasReturn = false
                continue
            }
            wasReturn = scalar == "\r"
            scalars.append(wasReturn ? "\n" : scalar)
        }
        if scalars.last == "\n" { scalars.removeLast() }
        source = scalars
    }

    private func matches(_ text: String, at index: Int) -> Bool {
        var cursor = index
        for scalar in text.unicodeScalars {
            guard cursor < source.count, source[cursor] == scalar else { return false }
            cursor += 1
        }
        return true
    }

    private mutating func emit(_ kind: JinjaToken.Kind) {
        tokens.append(JinjaToken(kind: kind, line: line))
    }

    /// Moves on and counts lines.
    private mutating func advance(to end: Int) {
        while position < end {
            if source[position] == "\n" { line += 1 }
            position += 1
        }
    }

    private func skippingSpace(from start: Int) -> Int {
        var index = start
        while index < source.count, source[index].isPythonSpace { index += 1 }
        return index
    }

    private mutating func run() throws {
        while position < source.count {
            var begin = position
            while begin < source.count, !isOpening(begin) { begin += 1 }
            guard begin < source.count else {
                emitData(position..<begin)
                advance(to: begin)
                break
            }
            let kind = source[begin + 1]
            emitData(trimmed(position..<begin, sign: sign(begin + 2), isOutput: kind == "{"))
            advance(to: begin)
            startsLine = false
            if kind == "#" {
                try comment()
            } else if kind == "%", let bodyStart = rawBegin(begin) {
                try raw(bodyStart)
            } else {
                try tag(isOutput: kind == "{")
            }
        }
        emit(.end)
    }

    private func isOpening(_ index: Int) -> Bool {
        guard source[index] == "{", index + 1 < source.count else { return false }
        let next = source[index + 1]
        return next == "{" || next == "%" || next == "#"
    }

    private func sign(_ index: Int) -> Unicode.Scalar? {
        guard index < source.count, source[index] == "-" || source[index] == "+" else { return nil }
        return source[index]
    }

    /// Text before a tag, less what its sign or `lstrip_blocks` takes away.
    private func trimmed(_ range: Range<Int>, sign: Unicode.Scalar?, isOutput: Bool) -> Range<Int> {
        var end = range.upperBound
        if sign == "-" {
            while end > range.lowerBound, source[end - 1].isPythonSpace { end -= 1 }
        } else if sign != "+", !isOutput {
            var index = end
            while index > range.lowerBound, source[index - 1] == " " || source[index - 1] == "\t" {
                index -= 1
            }
            let isLineStart = index > range.lowerBound ? source[index - 1] == "\n" : startsLine
            if isLineStart { end = index }
        }
        return range.lowerBound..<end
    }

    private mutating func emitData(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        var view = String.UnicodeScalarView()
        view.append(contentsOf: source[range])
        emit(.data(String(view)))
    }

    /// Where a closing mark ends with what it takes along: blanks after `-`, a newline unless `+`.
    private func closingEnd(_ mark: String, at index: Int, trims: Bool) -> Int? {
        if matches("-" + mark, at: index) { return skippingSpace(from: index + 3) }
        if trims, matches("+" + mark, at: index) { return index + 3 }
        guard matches(mark, at: index) else { return nil }
        let end = index + 2
        return trims && end < source.count && source[end] == "\n" ? end + 1 : end
    }

    private mutating func close(at end: Int) {
        advance(to: end)
        startsLine = end > 0 && source[end - 1] == "\n"
    }

    private mutating func comment() throws {
        var index = position + 2
        if sign(index) != nil { index += 1 }
        while index < source.count {
            if let end = closingEnd("#}", at: index, trims: true) { return close(at: end) }
            index += 1
        }
        throw JinjaFailure.syntax("missing end of comment tag", line: line)
    }

    /// Where the text of a `{% raw %}` that opens here starts.
    private func rawBegin(_ begin: Int) -> Int? {
        var index = begin + 2
        if sign(index) != nil { index += 1 }
        index = skippingSpace(from: index)
        guard matches("raw", at: index) else { return nil }
        index = skippingSpace(from: index + 3)
        if matches("-%}", at: index) { return skippingSpace(from: index + 3) }
        return matches("%}", at: index) ? index + 2 : nil
    }

    private mutating func raw(_ bodyStart: Int) throws {
        close(at: bodyStart)
        var index = position
        while index < source.count {
            if matches("{%", at: index) {
                var cursor = index + 2
                let sign = sign(cursor)
                if sign != nil { cursor += 1 }
                cursor = skippingSpace(from: cursor)
                if matches("endraw", at: cursor),
                    let end = closingEnd("%}", at: skippingSpace(from: cursor + 6), trims: true)
                {
                    emitData(trimmed(position..<index, sign: sign, isOutput: false))
                    return close(at: end)
                }
            }
            index += 1
        }
        throw JinjaFailure.syntax("missing end of raw block", line: line)
    }

    private mutating func tag(isOutput: Bool) throws {
        emit(isOutput ? .outputBegin : .tagBegin)
        advance(to: position + (sign(position + 2) == nil ? 2 : 3))
        var brackets: [Unicode.Scalar] = []
        while position < source.count {
            if source[position].isPythonSpace {
                advance(to: position + 1)
                continue
            }
            if brackets.isEmpty,
                let end = closingEnd(isOutput ? "}}" : "%}", at: position, trims: !isOutput)
            {
                emit(isOutput ? .outputEnd : .tagEnd)
                return close(at: end)
            }
            var scanner = JinjaTokenScanner(source: source, position: position, line: line)
            let kind = try scanner.next()
            if case .symbol(let symbol) = kind { try balance(symbol, &brackets) }
            emit(kind)
            advance(to: scanner.position)
        }
        throw JinjaFailure.syntax("a tag has no end", line: line)
    }

    private func balance(_ symbol: String, _ brackets: inout [Unicode.Scalar]) throws {
        switch symbol {
        case "(": brackets.append(")")
        case "[": brackets.append("]")
        case "{": brackets.append("}")
        case ")", "]", "}":
            guard let expected = brackets.popLast() else {
                throw JinjaFailure.syntax("unexpected '\(symbol)'", line: line)
            }
            guard symbol == String(expected) else {
                throw JinjaFailure.syntax(
                    "unexpected '\(symbol)', expected '\(expected)'", line: line)
            }
        default: break
        }
    }
}
