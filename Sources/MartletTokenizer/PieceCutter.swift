// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Cuts text where no merge can join: between two characters that stand side by side in no token.
///
/// SentencePiece merges over a whole text. Every merge makes a token, so a pair of neighbours that no
/// token holds stays apart whatever else happens, and the parts can be encoded (and remembered) one by
/// one.
///
/// `@unchecked Sendable`: the tables are written only in `init`.
final class PieceCutter: @unchecked Sendable {
    /// Pairs of ASCII characters, one byte each.
    private let narrow: UnsafeMutablePointer<Bool>
    /// Hashed pairs of other characters: a clash only cuts less.
    private let wide: UnsafeMutablePointer<UInt64>
    private static let wideBits: UInt64 = 1 << 19
    private let cutsBeforeSpaces: Bool

    /// Learns the pairs of all tokens that the filter keeps.
    init(_ description: TokenizerDescription, where isMerged: (Int) -> Bool) {
        narrow = .allocate(capacity: 128 * 128)
        narrow.initialize(repeating: false, count: 128 * 128)
        wide = .allocate(capacity: Int(Self.wideBits / 64))
        wide.initialize(repeating: 0, count: Int(Self.wideBits / 64))
        cutsBeforeSpaces = description.preTokenizer == .spaces
        description.tokenBytes.withUnsafeBufferPointer { all in
            guard let base = all.baseAddress else { return }
            for id in 0..<description.vocabularySize where isMerged(id) {
                let end = Int(description.tokenOffsets[id + 1])
                var position = Int(description.tokenOffsets[id])
                var previous: UInt32?
                while position < end {
                    let (code, length) = UTF8Decoding.scalar(base, position, end)
                    if let previous, let code { join(previous, code) }
                    previous = code
                    position += length
                }
            }
        }
    }

    deinit {
        narrow.deallocate()
        wide.deallocate()
    }

    private func join(_ left: UInt32, _ right: UInt32) {
        if cutsBeforeSpaces, right == 0x20 { return }
        if left | right < 0x80 {
            narrow[Int(left << 7 | right)] = true
        } else {
            let bit = Self.hash(left, right)
            wide[Int(bit >> 6)] |= 1 << (bit & 63)
        }
    }

    @inline(__always)
    private static func hash(_ left: UInt32, _ right: UInt32) -> UInt64 {
        let product = (UInt64(left) << 21 | UInt64(right)) &* 0x9E37_79B9_7F4A_7C15
        return product >> 45
    }

    /// End of the piece that starts at `start` (`start < end`).
    @inline(__always)
    func pieceEnd(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int {
        var position = start + 1
        var last = bytes[start]
        while last < 0x80 {
            guard position < end else { return end }
            let next = bytes[position]
            if next >= 0x80 { break }
            if !narrow[Int(last) << 7 | Int(next)] { return position }
            last = next
            position += 1
        }
        return wideEnd(bytes, position - 1, end)
    }

    /// The same from a position on that begins or precedes a character beyond ASCII.
    private func wideEnd(_ bytes: UnsafePointer<UInt8>, _ start: Int, _ end: Int) -> Int {
        let first = UTF8Decoding.scalar(bytes, start, end)
        var previous = first.code
        var position = start + first.length
        while position < end {
            let (code, length) = UTF8Decoding.scalar(bytes, position, end)
            guard let left = previous, let code else { return position }
            if left | code < 0x80 {
                if !narrow[Int(left << 7 | code)] { return position }
            } else {
                if cutsBeforeSpaces, code == 0x20 { return position }
                let bit = Self.hash(left, code)
                if wide[Int(bit >> 6)] >> (bit & 63) & 1 == 0 { return position }
            }
            previous = code
            position += length
        }
        return end
    }
}
