// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A canonical prefix code of DEFLATE, decoded by one look-up for short codes.
///
/// Source: RFC 1951, section 3.2.2.
struct HuffmanTable {
    /// Codes up to this length are decoded by one look-up.
    static let fastBitCount = 11
    /// The longest code the format allows.
    static let longestCode = 15

    /// By the next bits: symbol << 4 | code length, or 0 where the code is longer.
    private(set) var fast: [UInt32]
    /// Codes of each length.
    private(set) var countOfLength: [Int]
    /// Symbols in the order of their codes.
    private(set) var symbols: [UInt16]

    /// Builds the decoder of a code.
    ///
    /// - Parameters:
    ///   - lengths: Code length per symbol, 0 for an unused one.
    ///   - name: What the code is for, for messages.
    ///   - allowsIncomplete: Whether a code of one symbol, which leaves bits unused, is fine.
    /// - Throws: `MartletError` `.corrupt` if the lengths make no prefix code.
    init(_ lengths: ArraySlice<UInt8>, name: String, allowsIncomplete: Bool) throws {
        countOfLength = [Int](repeating: 0, count: Self.longestCode + 1)
        for length in lengths {
            guard length <= Self.longestCode else {
                throw MartletError(
                    .corrupt, "deflate: a \(name) code of \(length) bits, at most 15")
            }
            countOfLength[Int(length)] += 1
        }
        let usedCount = lengths.count - countOfLength[0]
        countOfLength[0] = 0
        var left = 1
        for length in 1...Self.longestCode {
            left = left * 2 - countOfLength[length]
            guard left >= 0 else {
                throw MartletError(.corrupt, "deflate: the \(name) code is over-subscribed")
            }
        }
        guard left == 0 || (allowsIncomplete && usedCount <= 1) else {
            throw MartletError(.corrupt, "deflate: the \(name) code is incomplete")
        }
        var start = [Int](repeating: 0, count: Self.longestCode + 2)
        for length in 1...Self.longestCode {
            start[length + 1] = start[length] + countOfLength[length]
        }
        symbols = [UInt16](repeating: 0, count: usedCount)
        for (symbol, length) in lengths.enumerated() where length > 0 {
            symbols[start[Int(length)]] = UInt16(symbol)
            start[Int(length)] += 1
        }
        fast = [UInt32](repeating: 0, count: 1 << Self.fastBitCount)
        fillFast()
    }

    private mutating func fillFast() {
        var code = 0
        var index = 0
        for length in 1...Self.fastBitCount {
            for _ in 0..<countOfLength[length] {
                // Codes are sent with their highest bit first, the stream is read lowest bit first.
                var reversed = 0
                for bit in 0..<length where code >> bit & 1 == 1 {
                    reversed |= 1 << (length - 1 - bit)
                }
                let entry = UInt32(symbols[index]) << 4 | UInt32(length)
                var slot = reversed
                while slot < fast.count {
                    fast[slot] = entry
                    slot += 1 << length
                }
                code += 1
                index += 1
            }
            code <<= 1
        }
    }
}
