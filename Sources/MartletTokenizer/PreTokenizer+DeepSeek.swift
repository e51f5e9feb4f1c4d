// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// The chains of DeepSeek in one pass each, where the text allows it.

extension PreTokenizer {
    /// Cuts a range as the chain of a kind does.
    @inline(__always)
    func cut(_ kind: PreTokenizerKind, _ start: Int, _ body: (Int, Int) -> Void) {
        switch kind {
        case .deepSeekLLM: cutLines(PreTokenizerStep.deepSeekLLM, .deepSeekLLM, start, body)
        case .deepSeekCoder: cutLines(PreTokenizerStep.deepSeekCoder, .deepSeekCoder, start, body)
        default: cutDeepSeekV3(start, body)
        }
    }

    /// `\p{N}{1,3}`, then `[一-龥぀-ゟ゠-ヿ]+`, then words in what both cut out and left: a number, which
    /// holds none, a run of Han and kana, or all up to the next of these.
    @inline(__always)
    private func cutDeepSeekV3(_ start: Int, _ body: (Int, Int) -> Void) {
        var position = start
        while position < end {
            let number = numberEnd(position, 3)
            if number > position {
                body(position, number)
                position = number
                continue
            }
            let run = hanAndKanaEnd(position)
            let words = part(to: run > position ? run : wordsEnd(position))
            var rest = position
            while position < words.end {
                let next = words.deepSeekWords(position)
                guard next > position else {
                    position += words.character(position).length
                    continue
                }
                if rest < position { body(rest, position) }
                body(position, next)
                position = next
                rest = next
            }
            if rest < position { body(rest, position) }
        }
    }

    private func hanAndKanaEnd(_ start: Int) -> Int {
        bytes[start] < 0x80
            ? start : run(start) { _, code in CodeRanges.hanAndKana.contains(code) }
    }

    /// The next number, Han character or kana.
    @inline(__always)
    private func wordsEnd(_ start: Int) -> Int {
        var position = start
        while position < end {
            if bytes[position] < 0x80 {
                if unicode.ascii[Int(bytes[position])].contains(.number) { return position }
                position += 1
                continue
            }
            let (code, length) = UTF8Decoding.scalar(bytes, position, end)
            if let code {
                if unicode(code).contains(.number) { return position }
                if CodeRanges.hanAndKana.contains(code) { return position }
            }
            position += length
        }
        return end
    }

    /// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|``
    /// `` ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``; the start where nothing matches.
    @inline(__always)
    private func deepSeekWords(_ start: Int) -> Int {
        let mark: CharacterClass = [.punctuation, .symbol]
        let word: CharacterClass = [.letter, .mark]
        let first = character(start)
        let second = start + first.length
        if first.length == 1, !first.classes.isDisjoint(with: mark) {
            var position = second
            while position < end, isASCIILetter(bytes[position]) { position += 1 }
            if position > second { return position }
        }
        if !first.classes.isDisjoint(with: word) {
            return run(from: start) { !$0.isDisjoint(with: word) }
        }
        if first.classes.isDisjoint(with: mark), !isLineBreak(start) {
            let wordEnd = run(from: second) { !$0.isDisjoint(with: word) }
            if wordEnd > second { return wordEnd }
        }
        let body = bytes[start] == UInt8(ascii: " ") ? second : start
        let markEnd = run(from: body) { !$0.isDisjoint(with: mark) }
        if markEnd > body {
            var position = markEnd
            while position < end, isLineBreak(position) { position += 1 }
            return position
        }
        guard first.classes.contains(.whitespace) else { return start }
        return lineBreakEnd(start) ?? whitespaceEnd(start) { $0 == end }
    }

    /// Line breaks are pieces of their own; within a line the parts of ASCII alone are cut in one pass.
    @inline(__always)
    private func cutLines(
        _ steps: [PreTokenizerStep], _ rule: ASCIIRule, _ start: Int, _ body: (Int, Int) -> Void
    ) {
        var position = start
        while position < end {
            if isLineBreak(position) {
                body(position, position + 1)
                position += 1
                continue
            }
            var (safe, next) = (position, position)
            while next < end, bytes[next] < 0x80, !isLineBreak(next) {
                if isBetweenWords(next, from: position) { safe = next }
                next += 1
            }
            if next == end || bytes[next] < 0x80 { safe = next }
            if safe > position {
                part(to: safe).cutASCII(rule, position, body)
                position = safe
                continue
            }
            while next < end, !isLineBreak(next), !isBetweenWords(next, from: position) {
                next += 1
            }
            part(to: next).cut(steps.dropFirst(), position, body)
            position = next
        }
    }

    private func part(to end: Int) -> PreTokenizer {
        PreTokenizer(bytes: bytes, end: end, unicode: unicode)
    }

    /// Whether a space has ASCII letters on both sides: every chain ends a piece before it, whatever
    /// stands further off.
    @inline(__always)
    private func isBetweenWords(_ position: Int, from start: Int) -> Bool {
        bytes[position] == UInt8(ascii: " ") && position > start && position + 1 < end
            && isASCIILetter(bytes[position - 1]) && isASCIILetter(bytes[position + 1])
    }

    /// What the chains come to in a line of ASCII.
    struct ASCIIRule {
        /// Characters that make runs, beside letters.
        let marks: CharacterClass
        /// Whether whitespace at the end of what is left is a piece of its own.
        let cutsTrailingSpace: Bool

        static let deepSeekLLM = ASCIIRule(
            marks: [.punctuation, .symbol], cutsTrailingSpace: true)
        static let deepSeekCoder = ASCIIRule(marks: .punctuation, cutsTrailingSpace: false)
    }

    /// Runs of letters and runs of marks, each with one whitespace character before it; digits alone;
    /// what is left in between.
    @inline(__always)
    private func cutASCII(_ rule: ASCIIRule, _ start: Int, _ body: (Int, Int) -> Void) {
        let ascii = unicode.ascii
        var (position, rest) = (start, start)
        while position < end {
            var classes = ascii[Int(bytes[position])]
            var next = position + 1
            if classes.contains(.whitespace), next < end {
                classes = ascii[Int(bytes[next])]
                next += 1
            }
            let run: CharacterClass =
                classes.contains(.letter)
                ? .letter : classes.isDisjoint(with: rule.marks) ? [] : rule.marks
            if run.isEmpty {
                position += 1
                continue
            }
            if rest < position { part(to: position).cutRest(rule, rest, body) }
            while next < end, !ascii[Int(bytes[next])].isDisjoint(with: run) { next += 1 }
            body(position, next)
            (position, rest) = (next, next)
        }
        if rest < end { cutRest(rule, rest, body) }
    }

    /// What is no letter and no mark.
    private func cutRest(_ rule: ASCIIRule, _ start: Int, _ body: (Int, Int) -> Void) {
        let ascii = unicode.ascii
        var tail = end
        while rule.cutsTrailingSpace, tail > start,
            ascii[Int(bytes[tail - 1])].contains(.whitespace)
        { tail -= 1 }
        var (position, rest) = (start, start)
        while position < tail {
            if ascii[Int(bytes[position])].contains(.digit) {
                if rest < position { body(rest, position) }
                body(position, position + 1)
                rest = position + 1
            }
            position += 1
        }
        if rest < tail { body(rest, tail) }
        if tail < end { body(tail, end) }
    }
}
