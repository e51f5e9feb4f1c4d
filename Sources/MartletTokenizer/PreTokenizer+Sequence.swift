// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A pattern of a chain: each cuts what the one before it left, matches and gaps alike.
enum PreTokenizerStep {
    /// `[\r\n]`.
    case lineBreak
    /// `\p{N}`, and `Digits` with individual digits.
    case digit
    /// `\s?\p{L}+`.
    case letters
    /// `\s?\p{P}+`.
    case punctuation
    /// `\s?` and the cased letters that DeepSeek LLM lists.
    case casedLetters
    /// `\s?[!-/:-~！-／：-～‘-‟　-。]+`.
    case wideAndASCIIPunctuation
    /// `\s+$`.
    case trailingSpace
    /// `[一-龥ࠀ-一가-퟿]+`.
    case eastAsian

    static let deepSeekLLM: [PreTokenizerStep] = [
        .lineBreak, .casedLetters, .wideAndASCIIPunctuation, .trailingSpace, .eastAsian, .digit,
    ]
    static let deepSeekCoder: [PreTokenizerStep] = [
        .lineBreak, .letters, .punctuation, .eastAsian, .digit,
    ]
}

extension PreTokenizer {
    /// Cuts a range by a chain of patterns.
    func cut(
        _ steps: ArraySlice<PreTokenizerStep>, _ start: Int, _ body: (Int, Int) -> Void
    ) {
        guard let step = steps.first else {
            body(start, end)
            return
        }
        let rest = steps.dropFirst()
        var position = start
        var gap = start
        while position < end {
            let match = matchEnd(step, position)
            guard match > position else {
                position += character(position).length
                continue
            }
            if gap < position {
                PreTokenizer(bytes: bytes, end: position, unicode: unicode).cut(rest, gap, body)
            }
            PreTokenizer(bytes: bytes, end: match, unicode: unicode).cut(rest, position, body)
            position = match
            gap = match
        }
        if gap < end { cut(rest, gap, body) }
    }

    /// End of the match at a position, the position itself where there is none.
    private func matchEnd(_ step: PreTokenizerStep, _ start: Int) -> Int {
        switch step {
        case .lineBreak: return isLineBreak(start) ? start + 1 : start
        case .digit:
            let first = character(start)
            return first.classes.contains(.digit) ? start + first.length : start
        case .letters: return spacedRun(start) { classes, _ in classes.contains(.letter) }
        case .punctuation: return spacedRun(start) { classes, _ in classes.contains(.punctuation) }
        case .casedLetters:
            return spacedRun(start) { classes, code in
                classes.contains(.letter) && CodeRanges.casedLetters.contains(code)
            }
        case .wideAndASCIIPunctuation:
            return spacedRun(start) { _, code in CodeRanges.wideAndASCIIPunctuation.contains(code) }
        case .trailingSpace:
            let spaceEnd = run(from: start) { $0.contains(.whitespace) }
            return spaceEnd == end ? end : start
        case .eastAsian: return run(start) { _, code in CodeRanges.eastAsian.contains(code) }
        }
    }

    func run(_ start: Int, while condition: (CharacterClass, UInt32) -> Bool) -> Int {
        var position = start
        while position < end {
            let (code, length) = UTF8Decoding.scalar(bytes, position, end)
            guard let code, condition(unicode(code), code) else { break }
            position += length
        }
        return position
    }

    /// A run that may have one whitespace character before it.
    private func spacedRun(
        _ start: Int, while condition: (CharacterClass, UInt32) -> Bool
    ) -> Int {
        let first = character(start)
        let plain = run(start, while: condition)
        guard first.classes.contains(.whitespace) else { return plain }
        let body = start + first.length
        let spaced = run(body, while: condition)
        return spaced > body ? spaced : plain
    }

    func isASCIILetter(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }
}

/// Sorted ranges of code points that patterns list.
struct CodeRanges {
    private let bounds: [ClosedRange<UInt32>]

    private init(_ bounds: [ClosedRange<UInt32>]) { self.bounds = bounds }

    func contains(_ code: UInt32) -> Bool {
        var low = 0
        var high = bounds.count
        while low < high {
            let middle = (low + high) / 2
            if code > bounds[middle].upperBound { low = middle + 1 } else { high = middle }
        }
        return low < bounds.count && bounds[low].lowerBound <= code
    }

    /// The inside of the bracket that lists `casedLetters`, as files write it.
    static var casedLetterPattern: String {
        func text(_ code: UInt32) -> String { Unicode.Scalar(code).map { String($0) } ?? "" }
        return casedLetters.bounds.map {
            $0.count == 1
                ? text($0.lowerBound) : text($0.lowerBound) + "-" + text($0.upperBound)
        }.joined()
    }

    static let hanAndKana = CodeRanges([0x3040...0x30FF, 0x4E00...0x9FA5])
    static let eastAsian = CodeRanges([0x0800...0x9FA5, 0xAC00...0xD7FF])
    static let wideAndASCIIPunctuation = CodeRanges([
        0x21...0x2F, 0x3A...0x7E, 0x2018...0x201F, 0x3000...0x3002, 0xFF01...0xFF0F,
        0xFF1A...0xFF5E,
    ])
    static let casedLetters = CodeRanges([
        0x41...0x5A, 0x61...0x7A, 0xB5...0xB5, 0xC0...0xD6, 0xD8...0xF6, 0xF8...0x1BA,
        0x1BC...0x1BF, 0x1C4...0x293, 0x295...0x2AF, 0x370...0x373, 0x376...0x376, 0x377...0x377,
        0x37B...0x37D, 0x37F...0x37F, 0x386...0x386, 0x388...0x38A, 0x38C...0x38C, 0x38E...0x3A1,
        0x3A3...0x3F5, 0x3F7...0x481, 0x48A...0x52F, 0x531...0x556, 0x10A0...0x10C5,
        0x13A0...0x13F5, 0x13F8...0x13FD, 0x1C90...0x1CBA, 0x1CBD...0x1CBF, 0x1D00...0x1D2B,
        0x1D6B...0x1D77, 0x1D79...0x1D9A, 0x1E00...0x1F15, 0x1F18...0x1F1D, 0x1F20...0x1F45,
        0x1F48...0x1F4D, 0x1F50...0x1F57, 0x1F59...0x1F59, 0x1F5B...0x1F5B, 0x1F5D...0x1F5D,
        0x1F5F...0x1F7D, 0x1F80...0x1FB4, 0x1FB6...0x1FBC, 0x1FBE...0x1FBE, 0x1FC2...0x1FC4,
        0x1FC6...0x1FCC, 0x1FD0...0x1FD3, 0x1FD6...0x1FDB, 0x1FE0...0x1FEC, 0x1FF2...0x1FF4,
        0x1FF6...0x1FFC, 0x2102...0x2102, 0x2107...0x2107, 0x210A...0x2113, 0x2115...0x2115,
        0x2119...0x211D, 0x2124...0x2124, 0x2126...0x2126, 0x2128...0x2128, 0x212A...0x212D,
        0x212F...0x2134, 0x2139...0x2139, 0x213C...0x213F, 0x2145...0x2149, 0x214E...0x214E,
        0x2183...0x2183, 0x2184...0x2184, 0x2C00...0x2C7B, 0x2C7E...0x2CE4, 0x2CEB...0x2CEE,
        0x2CF2...0x2CF2, 0x2CF3...0x2CF3, 0xA640...0xA66D, 0xA680...0xA69B, 0xA722...0xA76F,
        0xA771...0xA787, 0xA78B...0xA78E, 0xAB70...0xABBF, 0xFB00...0xFB06, 0xFB13...0xFB17,
        0xFF21...0xFF3A, 0xFF41...0xFF5A, 0x10400...0x1044F, 0x104B0...0x104D3, 0x104D8...0x104FB,
        0x10C80...0x10CB2, 0x10CC0...0x10CF2, 0x118A0...0x118DF, 0x1E900...0x1E943,
    ])
}
