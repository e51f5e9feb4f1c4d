// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds added tokens in text: the longest at the leftmost place, by narrowing a sorted list byte by byte.
///
/// A list takes little more than the patterns themselves, which a hostile file makes long or many.
struct AddedTokenMatcher: Sendable {
    private let tokens: [AddedToken]
    /// Of each token whether only trusted text may contain it.
    private let isControl: [Bool]
    /// All patterns one after another, and where each token's begins and the last one's ends.
    private var patterns: [UInt8] = []
    private var starts: [Int] = [0]
    /// Tokens in the order of their patterns, each pattern once.
    private var order: [Int32] = []
    /// Where in the order each first byte begins, and the last one ends.
    private var places = [Int](repeating: 0, count: 257)

    /// A match: where it is and which token.
    struct Match {
        var start: Int
        var end: Int
        var token: AddedToken
    }

    var isEmpty: Bool { tokens.isEmpty }

    /// - Parameter template: The chat template, which writes control tokens out.
    init(_ tokens: [AddedToken], template: String? = nil) {
        self.tokens = tokens
        isControl = tokens.map { $0.isControl(in: template) }
        for token in tokens {
            patterns.append(contentsOf: token.pattern.utf8)
            starts.append(patterns.count)
        }
        sort()
        for index in order { places[Int(patterns[starts[Int(index)]]) + 1] += 1 }
        for byte in 0..<256 { places[byte + 1] += places[byte] }
    }

    private mutating func sort() {
        let starts = starts
        let candidates = tokens.indices.filter { starts[$0] < starts[$0 + 1] }.map {
            Int32(truncatingIfNeeded: $0)
        }
        order = patterns.withUnsafeBytes { bytes in
            func pattern(_ index: Int32) -> UnsafeRawBufferPointer {
                UnsafeRawBufferPointer(rebasing: bytes[starts[Int(index)]..<starts[Int(index) + 1]])
            }
            let sorted = candidates.sorted { left, right in
                let (a, b) = (pattern(left), pattern(right))
                if let place = zip(a, b).first(where: { $0 != $1 }) { return place.0 < place.1 }
                return a.count == b.count ? left < right : a.count < b.count
            }
            // Of two tokens with the same text the first one counts.
            return sorted.indices.filter {
                $0 == 0 || !pattern(sorted[$0 - 1]).elementsEqual(pattern(sorted[$0]))
            }.map { sorted[$0] }
        }
    }

    /// The byte of a pattern at a depth; -1 behind its end.
    private func byte(_ place: Int, _ depth: Int) -> Int {
        let start = starts[Int(order[place])]
        return start + depth < starts[Int(order[place]) + 1] ? Int(patterns[start + depth]) : -1
    }

    /// The first place of a range whose byte at a depth is at least a value.
    private func lowerBound(_ range: Range<Int>, _ depth: Int, _ value: Int) -> Int {
        var (low, high) = (range.lowerBound, range.upperBound)
        while low < high {
            let middle = low + (high - low) / 2
            if byte(middle, depth) < value { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The first match at or after a position.
    ///
    /// - Parameters:
    ///   - end: End of the text.
    ///   - trust: Tells how far the text from a position on is trusted.
    func first(
        in bytes: UnsafePointer<UInt8>, from start: Int, end: Int, trust: inout TrustCursor,
        allowsSpecial: Bool
    ) -> Match? {
        var position = start
        while position < end {
            let first = Int(bytes[position])
            var range = places[first]..<places[first + 1]
            if range.isEmpty {
                position += 1
                continue
            }
            let specialEnd = allowsSpecial ? trust.trustedEnd(from: position) : position
            var depth = 1
            var best: (end: Int, token: AddedToken)?
            while !range.isEmpty {
                // The pattern that ends here, if one does, is the first of those that begin so.
                if byte(range.lowerBound, depth) < 0 {
                    let index = Int(order[range.lowerBound])
                    if !isControl[index] || position + depth <= specialEnd {
                        best = (position + depth, tokens[index])
                    }
                }
                guard position + depth < end else { break }
                let next = Int(bytes[position + depth])
                let low = lowerBound(range, depth, next)
                range = low..<lowerBound(low..<range.upperBound, depth, next + 1)
                depth += 1
            }
            if let best {
                if !best.token.singleWord
                    || !isWord(before: position, bytes, start) && !isWord(at: best.end, bytes, end)
                {
                    return Match(start: position, end: best.end, token: best.token)
                }
                position = best.end
            } else {
                position += 1
            }
        }
        return nil
    }

    private func isWord(at position: Int, _ bytes: UnsafePointer<UInt8>, _ end: Int) -> Bool {
        guard position < end, let code = UTF8Decoding.scalar(bytes, position, end).code else {
            return false
        }
        return isWord(code)
    }

    private func isWord(before position: Int, _ bytes: UnsafePointer<UInt8>, _ start: Int) -> Bool {
        var first = position - 1
        while first > 0, first > position - 4, bytes[first] & 0xC0 == 0x80 { first -= 1 }
        guard first >= 0, let code = UTF8Decoding.scalar(bytes, first, position).code else {
            return false
        }
        return isWord(code)
    }

    /// The `\w` of Rust's regular expressions, pinned to Unicode 16 as the tables are: letters,
    /// marks, decimal
    /// and letter numbers, connectors, joiners, and the circled and squared letters.
    private func isWord(_ code: UInt32) -> Bool {
        let word: CharacterClass = [.letter, .mark, .connector, .wordNumber]
        if !UnicodeClasses.shared(code).isDisjoint(with: word) { return true }
        switch code {
        case 0x200C...0x200D, 0x24B6...0x24E9, 0x1F130...0x1F149, 0x1F150...0x1F169,
            0x1F170...0x1F189:
            return true
        default: return false
        }
    }
}

extension AddedToken {
    /// Whether only trusted text may contain it: a special token, or one that marks roles or calls though
    /// its files do not say so.
    ///
    /// DeepSeek V3's `<｜User｜>` and Qwen2.5's `<tool_call>` are not special in their `tokenizer.json`; a
    /// user who types them must not begin a turn.
    func isControl(in template: String?) -> Bool {
        if isSpecial { return true }
        guard let first = content.first, let last = content.last, content.count > 2,
            first == "<" && last == ">" || first == "[" && last == "]"
        else { return false }
        let inner = content.dropFirst().dropLast()
        return ["|", "｜"].contains { inner.hasPrefix($0) && inner.hasSuffix($0) }
            || template?.contains(content) == true
    }
}

/// A run of text of one origin, from where the run before ends.
struct TrustRun: Sendable {
    var end: Int
    var isTrusted: Bool
}

/// Walks along runs of trusted and untrusted text.
struct TrustCursor {
    private let runs: [TrustRun]
    private var index = 0

    init(_ runs: [TrustRun]) { self.runs = runs }

    /// Whether any text is trusted.
    var hasTrust: Bool { runs.contains { $0.isTrusted } }

    /// End of the trusted text from a position on; the position itself if it is untrusted.
    ///
    /// Positions should grow from call to call: the cursor searches on from the last.
    mutating func trustedEnd(from position: Int) -> Int {
        if index > 0, runs[index - 1].end > position { index = 0 }
        while index < runs.count, runs[index].end <= position { index += 1 }
        guard index < runs.count, runs[index].isTrusted else { return position }
        return runs[index].end
    }
}
