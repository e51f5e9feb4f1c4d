// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Tokenizer {
    /// Ids of a text.
    ///
    /// - Parameters:
    ///   - allowSpecial: Control tokens written in the text count as such; give false for a user's
    ///     text.
    ///   - addSpecial: Puts the model's begin (and end) tokens around it.
    package func encode(_ text: String, allowSpecial: Bool, addSpecial: Bool) -> [Int] {
        var text = text
        return text.withUTF8 { encode($0, [($0.count, allowSpecial)], addSpecial) }
    }

    /// Ids of bytes, which may be no UTF-8.
    package func encode(bytes: [UInt8], allowSpecial: Bool, addSpecial: Bool) -> [Int] {
        bytes.withUnsafeBufferPointer { encode($0, [($0.count, allowSpecial)], addSpecial) }
    }

    /// Ids of a text made of parts: read as one text, but control tokens count only within trusted
    /// parts.
    package func encode(_ segments: [TextSegment], addSpecial: Bool) -> [Int] {
        var bytes: [UInt8] = []
        var runs: [(end: Int, isTrusted: Bool)] = []
        for segment in segments where !segment.text.isEmpty {
            bytes.append(contentsOf: segment.text.utf8)
            if let last = runs.last, last.isTrusted == segment.isTrusted { runs.removeLast() }
            runs.append((bytes.count, segment.isTrusted))
        }
        return bytes.withUnsafeBufferPointer { encode($0, runs, addSpecial) }
    }

    private func encode(
        _ text: UnsafeBufferPointer<UInt8>, _ runs: [(end: Int, isTrusted: Bool)],
        _ addSpecial: Bool
    ) -> [Int] {
        var output: [Int] = []
        output.reserveCapacity(text.count / 4 + 8)
        if addSpecial { output += storage.description.prefixIDs }
        if let base = text.baseAddress, !text.isEmpty {
            storage.withEncoder { encoder in
                var cursor = TrustCursor(runs)
                encode(base, 0, text.count, text.count, round: 0, &cursor, encoder, &output)
            }
        }
        if addSpecial { output += storage.description.suffixIDs }
        return output
    }

    /// Cuts added tokens of one round out of a range and hands the rest to the next round.
    private func encode(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ readable: Int, round: Int,
        _ trust: inout TrustCursor, _ encoder: PieceEncoder, _ output: inout [Int]
    ) {
        guard start < end else { return }
        guard round < storage.matchers.count else {
            encodePieces(bytes, start, end, readable, encoder, &output)
            return
        }
        let matcher = storage.matchers[round]
        let allowsSpecial = trust.runs.contains { $0.isTrusted }
        var position = start
        var search = start
        while let match = matcher.first(
            in: bytes, from: search, end: end, trust: &trust, allowsSpecial: allowsSpecial)
        {
            let text = PreTokenizer(bytes: bytes, end: end, unicode: .shared)
            var left = max(match.start, position)
            var right = match.end
            if match.token.stripsLeft { left = whitespaceStart(bytes, from: position, to: left) }
            if match.token.stripsRight {
                right = text.run(from: right) { $0.contains(.whitespace) }
            }
            encode(bytes, position, left, readable, round: round + 1, &trust, encoder, &output)
            output.append(match.token.id)
            position = right
            search = right
        }
        encode(bytes, position, end, readable, round: round + 1, &trust, encoder, &output)
    }

    /// Start of the whitespace that ends at `end`.
    private func whitespaceStart(_ bytes: UnsafePointer<UInt8>, from start: Int, to end: Int) -> Int
    {
        var position = end
        while position > start {
            var first = position - 1
            while first > start, first > position - 4, bytes[first] & 0xC0 == 0x80 { first -= 1 }
            let character = UTF8Decoding.scalar(bytes, first, position)
            guard let code = character.code, first + character.length == position,
                UnicodeClasses.shared(code).contains(.whitespace)
            else { break }
            position = first
        }
        return position
    }

    private func encodePieces(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ readable: Int,
        _ encoder: PieceEncoder,
        _ output: inout [Int]
    ) {
        if storage.description.addsPrefixSpace, bytes[start] != UInt8(ascii: " ") {
            let copy =
                [UInt8(ascii: " ")] + UnsafeBufferPointer(start: bytes + start, count: end - start)
            copy.withUnsafeBufferPointer { buffer in
                if let base = buffer.baseAddress {
                    scan(base, 0, buffer.count, buffer.count, encoder, &output)
                }
            }
        } else {
            scan(bytes, start, end, readable, encoder, &output)
        }
    }

    private func scan(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ readable: Int,
        _ encoder: PieceEncoder,
        _ output: inout [Int]
    ) {
        let scanner = PreTokenizer(bytes: bytes, end: end, unicode: .shared)
        let kind = storage.description.preTokenizer
        var position = start
        while position < end {
            let next = scanner.pieceEnd(kind, position)
            encoder.encode(
                bytes + position, count: next - position, readable: readable - position,
                into: &output)
            position = next
        }
    }
}
