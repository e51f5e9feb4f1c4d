// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds added tokens in text: the longest at the leftmost place, over a trie.
struct AddedTokenMatcher: Sendable {
    private var children: [UInt64: Int32] = [:]
    private var tokenAt: [Int32] = [-1]
    private var isFirst = [Bool](repeating: false, count: 256)
    private let tokens: [AddedToken]
    /// Of each token whether only trusted text may contain it.
    private let isControl: [Bool]

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
        for (index, token) in tokens.enumerated() {
            var node: Int32 = 0
            for byte in token.pattern.utf8 {
                let key = UInt64(UInt32(bitPattern: node)) << 8 | UInt64(byte)
                if node == 0 { isFirst[Int(byte)] = true }
                if let next = children[key] {
                    node = next
                } else {
                    let next = Int32(truncatingIfNeeded: tokenAt.count)
                    children[key] = next
                    tokenAt.append(-1)
                    node = next
                }
            }
            // Of two tokens with the same text the first one counts.
            if node > 0, tokenAt[Int(node)] < 0 {
                tokenAt[Int(node)] = Int32(truncatingIfNeeded: index)
            }
        }
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
            if !isFirst[Int(bytes[position])] {
                position += 1
                continue
            }
            let specialEnd = allowsSpecial ? trust.trustedEnd(from: position) : position
            var node: Int32 = 0
            var cursor = position
            var best: (end: Int, token: AddedToken)?
            while cursor < end,
                let next = children[UInt64(UInt32(bitPattern: node)) << 8 | UInt64(bytes[cursor])]
            {
                node = next
                cursor += 1
                if tokenAt[Int(node)] >= 0 {
                    let index = Int(tokenAt[Int(node)])
                    if !isControl[index] || cursor <= specialEnd { best = (cursor, tokens[index]) }
                }
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
