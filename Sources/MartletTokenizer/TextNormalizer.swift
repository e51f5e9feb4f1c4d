// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Text on its way to tokens: bytes, and which runs of them are trusted.
struct TrustedText {
    var bytes: [UInt8] = []
    var runs: [TrustRun] = []
}

/// What happens to text before it is cut: composition, spaces for marks, a space in front.
struct TextNormalizer: Sendable {
    private let composes: Bool
    private let unmarks: Bool
    private let dropsExtraSpaces: Bool

    init(_ description: TokenizerDescription) {
        composes = description.composes
        unmarks = description.model == .sentencePiece
        dropsExtraSpaces = description.dropsExtraSpaces
    }

    /// The normalized form of a part of a text; nil if it is the part itself.
    ///
    /// - Parameters:
    ///   - runs: Runs of the whole text; those returned count from the part's start.
    ///   - addsSpace: Puts a space in front, unless nothing is left.
    func normalized(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ runs: [TrustRun], addsSpace: Bool
    ) -> TrustedText? {
        var current: TrustedText?
        if composes, let unstable = firstUnstable(bytes, start, end) {
            current = composed(bytes, start, end, unstable, runs)
        }
        func pass(_ body: (UnsafePointer<UInt8>, Int, Int, [TrustRun]) -> TrustedText) {
            guard let known = current else {
                current = body(bytes, start, end, runs)
                return
            }
            known.bytes.withUnsafeBufferPointer { buffer in
                guard let base = buffer.baseAddress else { return }
                current = body(base, 0, buffer.count, known.runs)
            }
        }
        if dropsExtraSpaces {
            pass { trimmed($0, $1, $2, $3, addsSpace: addsSpace) }
        } else if addsSpace || firstMark(bytes, start, end) != nil {
            pass { unmarked($0, $1, $2, $3, addsSpace: addsSpace) }
        }
        return current
    }

    // MARK: Spaces

    private func firstMark(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int? {
        guard unmarks else { return nil }
        var position = start
        while position < end, !SpaceMark.isMark(bytes, position, end) { position += 1 }
        return position < end ? position : nil
    }

    /// Spaces in place of marks, and one in front.
    private func unmarked(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ runs: [TrustRun], addsSpace: Bool
    ) -> TrustedText {
        var writer = TrustedTextWriter(runs, start, capacity: end - start + 1)
        if addsSpace { writer.text.bytes.append(UInt8(ascii: " ")) }
        var copied = start
        while let mark = firstMark(bytes, copied, end) {
            writer.copy(bytes, copied, mark)
            writer.text.bytes.append(UInt8(ascii: " "))
            copied = mark + 3
            writer.pass(copied)
        }
        writer.copy(bytes, copied, end)
        return writer.finish()
    }

    /// The same, with leading, trailing and repeated spaces dropped.
    private func trimmed(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ runs: [TrustRun], addsSpace: Bool
    ) -> TrustedText {
        let space = UInt8(ascii: " ")
        var writer = TrustedTextWriter(runs, start, capacity: end - start + 1)
        var position = start
        while position < end, bytes[position] == space { position += 1 }
        if position == end { return writer.finish() }
        if addsSpace { writer.text.bytes.append(space) }
        while position < end {
            writer.pass(position)
            if unmarks, SpaceMark.isMark(bytes, position, end) {
                writer.text.bytes.append(space)
                position += 3
                continue
            }
            let byte = bytes[position]
            writer.text.bytes.append(byte)
            position += 1
            if byte == space {
                while position < end, bytes[position] == space { position += 1 }
            }
        }
        while writer.text.bytes.last == space { writer.text.bytes.removeLast() }
        return writer.finish()
    }

    // MARK: Composition

    private func firstUnstable(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int? {
        var position = start
        while position < end {
            // Nothing below U+0300 changes.
            if bytes[position] < 0xCC {
                position += 1
                continue
            }
            let (code, length) = UTF8Decoding.scalar(bytes, position, end)
            if let code, UnicodeClasses.shared(code).contains(.unstable) { return position }
            position += length
        }
        return nil
    }

    private func composed(
        _ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int, _ firstUnstable: Int,
        _ runs: [TrustRun]
    ) -> TrustedText {
        var writer = TrustedTextWriter(runs, start, capacity: end - start)
        var copied = start
        var unstable: Int? = firstUnstable
        while let at = unstable {
            // The character before may join, what follows up to the next stable one may move.
            var first = at
            if first > copied {
                first -= 1
                while first > copied, first > at - 4, bytes[first] & 0xC0 == 0x80 { first -= 1 }
                if UTF8Decoding.scalar(bytes, first, at).length != at - first { first = at }
            }
            var scalars: [UInt32] = []
            var position = first
            while position < end {
                let (code, length) = UTF8Decoding.scalar(bytes, position, end)
                guard let code else { break }
                if position > at, !UnicodeClasses.shared(code).contains(.unstable) { break }
                scalars.append(code)
                position += length
            }
            writer.copy(bytes, copied, first)
            for code in Composition.shared.compose(scalars) {
                if let scalar = Unicode.Scalar(code), let utf8 = UTF8.encode(scalar) {
                    writer.text.bytes += utf8
                }
            }
            writer.pass(position)
            copied = position
            unstable = self.firstUnstable(bytes, position, end)
        }
        writer.copy(bytes, copied, end)
        return writer.finish()
    }
}

/// Writes text while runs of trust keep their places.
struct TrustedTextWriter {
    var text = TrustedText()
    private let runs: [TrustRun]
    private var next = 0

    /// Writes the text that begins at a position of another, which has these runs.
    init(_ runs: [TrustRun], _ start: Int, capacity: Int) {
        self.runs = runs
        text.bytes.reserveCapacity(capacity)
        while next < runs.count, runs[next].end <= start { next += 1 }
    }

    /// Notes that all before a position of the other text is written.
    mutating func pass(_ position: Int) {
        while next < runs.count, runs[next].end <= position {
            text.runs.append(TrustRun(end: text.bytes.count, isTrusted: runs[next].isTrusted))
            next += 1
        }
    }

    mutating func copy(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) {
        var position = start
        while position < end {
            let stop = next < runs.count ? min(max(runs[next].end, position + 1), end) : end
            text.bytes.append(
                contentsOf: UnsafeBufferPointer(start: bytes + position, count: stop - position))
            position = stop
            pass(position)
        }
    }

    /// The text, once all is written.
    mutating func finish() -> TrustedText {
        if next < runs.count {
            text.runs.append(TrustRun(end: text.bytes.count, isTrusted: runs[next].isTrusted))
        }
        return text
    }
}
