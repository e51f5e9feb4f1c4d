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
        return text.withUTF8 {
            encode($0, [TrustRun(end: $0.count, isTrusted: allowSpecial)], addSpecial)
        }
    }

    /// Ids of bytes, which may be no UTF-8.
    package func encode(bytes: [UInt8], allowSpecial: Bool, addSpecial: Bool) -> [Int] {
        bytes.withUnsafeBufferPointer {
            encode($0, [TrustRun(end: $0.count, isTrusted: allowSpecial)], addSpecial)
        }
    }

    /// Ids of a text made of parts: read as one text, but control tokens count only within trusted
    /// parts.
    package func encode(_ segments: [TextSegment], addSpecial: Bool) -> [Int] {
        var bytes: [UInt8] = []
        var runs: [TrustRun] = []
        for segment in segments where !segment.text.isEmpty {
            bytes.append(contentsOf: segment.text.utf8)
            if runs.last?.isTrusted == segment.isTrusted { runs.removeLast() }
            runs.append(TrustRun(end: bytes.count, isTrusted: segment.isTrusted))
        }
        return bytes.withUnsafeBufferPointer { encode($0, runs, addSpecial) }
    }

    private func encode(
        _ text: UnsafeBufferPointer<UInt8>, _ runs: [TrustRun], _ addSpecial: Bool
    ) -> [Int] {
        storage.withEncoder { pieces in
            var encoding = TextEncoding(storage, pieces, runs)
            encoding.output.reserveCapacity(text.count / 4 + 8)
            if addSpecial { encoding.output += storage.description.prefixIDs }
            if let base = text.baseAddress { encoding.encode(base, text.count) }
            if addSpecial { encoding.output += storage.description.suffixIDs }
            return encoding.output
        }
    }
}

/// One text on its way to ids: added tokens out, the rest normalized, added tokens of the second
/// round out, the rest cut into pieces.
private struct TextEncoding {
    let storage: TokenizerStorage
    let pieces: PieceEncoder
    let runs: [TrustRun]
    var output: [Int] = []

    init(_ storage: TokenizerStorage, _ pieces: PieceEncoder, _ runs: [TrustRun]) {
        self.storage = storage
        self.pieces = pieces
        self.runs = runs
    }

    mutating func encode(_ bytes: UnsafePointer<UInt8>, _ count: Int) {
        cut(storage.plainMatcher, bytes, 0, count, runs) { encoding, start, end in
            encoding.normalize(bytes, start, end, readable: count)
        }
    }

    private mutating func normalize(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, readable: Int
    ) {
        let prefix = storage.description.spacePrefix
        let normalized = storage.normalizer.normalized(
            bytes, start, end, runs, addsSpace: prefix == .parts || prefix == .start && start == 0)
        guard let normalized else {
            cut(storage.normalizedMatcher, bytes, start, end, runs) { encoding, from, to in
                encoding.split(bytes, from, to, readable: readable, isStart: from == 0)
            }
            return
        }
        normalized.bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return }
            cut(storage.normalizedMatcher, base, 0, buffer.count, normalized.runs) {
                encoding, from, to in
                encoding.split(
                    base, from, to, readable: buffer.count, isStart: from == 0 && start == 0)
            }
        }
    }

    /// Cuts added tokens out of a range and hands the parts between to the closure.
    private mutating func cut(
        _ matcher: AddedTokenMatcher, _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int,
        _ runs: [TrustRun], _ body: (inout TextEncoding, Int, Int) -> Void
    ) {
        var position = start
        var trust = TrustCursor(runs)
        let allowsSpecial = trust.hasTrust
        while !matcher.isEmpty,
            let match = matcher.first(
                in: bytes, from: position, end: end, trust: &trust, allowsSpecial: allowsSpecial)
        {
            let text = PreTokenizer(bytes: bytes, end: end, unicode: .shared)
            var left = match.start
            var right = match.end
            if match.token.stripsLeft { left = text.whitespaceStart(from: position, to: left) }
            if match.token.stripsRight {
                right = text.run(from: right) { $0.contains(.whitespace) }
            }
            if position < left { body(&self, position, left) }
            output.append(match.token.id)
            position = right
        }
        if position < end { body(&self, position, end) }
    }

    /// Puts a space before a part that wants one.
    private mutating func split(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, readable: Int, isStart: Bool
    ) {
        let prefix = storage.description.spacePrefix
        let space = UInt8(ascii: " ")
        let isWanted = prefix == .partsUnlessSpace || prefix == .startUnlessSpace && isStart
        guard isWanted, bytes[start] != space else {
            scan(bytes, start, end, readable)
            return
        }
        let copy = [space] + UnsafeBufferPointer(start: bytes + start, count: end - start)
        copy.withUnsafeBufferPointer { buffer in
            if let base = buffer.baseAddress { scan(base, 0, buffer.count, buffer.count) }
        }
    }

    /// Cuts a part into pieces and appends their ids.
    private mutating func scan(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ readable: Int
    ) {
        let first = output.count
        let kind = storage.description.preTokenizer
        var position = start
        if let cutter = storage.model.cutter {
            while position < end {
                let next = cutter.pieceEnd(bytes, position, end)
                pieces.encode(
                    bytes + position, count: next - position, readable: readable - position,
                    into: &output)
                position = next
            }
            if storage.description.fusesUnknown { fuseUnknown(from: first) }
            return
        }
        let scanner = PreTokenizer(bytes: bytes, end: end, unicode: .shared)
        if kind.isChain {
            scanner.cut(kind, start) { from, to in
                pieces.encode(
                    bytes + from, count: to - from, readable: readable - from, into: &output)
            }
            return
        }
        while position < end {
            let next = scanner.pieceEnd(kind, position)
            pieces.encode(
                bytes + position, count: next - position, readable: readable - position,
                into: &output)
            position = next
        }
    }

    /// Leaves one of adjacent unknown tokens.
    private mutating func fuseUnknown(from first: Int) {
        guard let unknown = storage.description.unknownID, storage.description.byteIDs.isEmpty
        else { return }
        var kept = first
        for index in first..<output.count {
            if output[index] == unknown, kept > first, output[kept - 1] == unknown { continue }
            output[kept] = output[index]
            kept += 1
        }
        output.removeLast(output.count - kept)
    }
}
