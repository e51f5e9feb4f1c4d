// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Decompresses DEFLATE data (RFC 1951) piece by piece with a fixed amount of memory.
package struct Inflate: ~Copyable {
    private static let windowSize = 32_768
    private static let pieceSize = 262_144
    private static let longestMatch = 258

    private let input: UnsafeRawBufferPointer
    private let limit: Int
    private var next = 0
    private var bits: UInt64 = 0
    private var bitCount = 0
    private let output: UnsafeMutablePointer<UInt8>
    private var position = 0
    private var flushed = 0
    private var total = 0

    private init(_ input: UnsafeRawBufferPointer, limit: Int) {
        self.input = input
        self.limit = limit
        let capacity = Self.windowSize + Self.pieceSize + Self.longestMatch
        output = .allocate(capacity: capacity)
        output.initialize(repeating: 0, count: capacity)
    }

    deinit { output.deallocate() }

    /// Decompresses a whole stream.
    ///
    /// - Parameters:
    ///   - input: The compressed bytes.
    ///   - limit: The most bytes that may come out.
    ///   - piece: Takes the output in order, at most 290 KiB a call.
    /// - Returns: Bytes that came out.
    /// - Throws: `MartletError` `.corrupt` for a damaged stream, and what the closure throws.
    @discardableResult
    package static func run(
        _ input: UnsafeRawBufferPointer, limit: Int,
        piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws -> Int {
        var state = Inflate(input, limit: limit)
        var isLast = false
        while !isLast {
            isLast = try state.take(1) == 1
            switch try state.take(2) {
            case 0: try state.stored(piece)
            case 1: try state.compressed(fixedLiterals.get(), fixedDistances.get(), piece)
            case 2:
                let (literals, distances) = try state.readCodes()
                try state.compressed(literals, distances, piece)
            default: throw MartletError(.corrupt, "deflate: block type 3 does not exist")
            }
        }
        try state.flush(keepingWindow: false, piece)
        return state.total
    }

    // MARK: Bits

    @inline(__always)
    private mutating func refill() {
        if bitCount <= 32, input.count - next >= 4 {
            let word = input.loadUnaligned(fromByteOffset: next, as: UInt32.self).littleEndian
            bits |= UInt64(word) << UInt64(bitCount)
            bitCount += 32
            next += 4
        } else {
            while bitCount <= 56, next < input.count {
                bits |= UInt64(input[next]) << UInt64(bitCount)
                bitCount += 8
                next += 1
            }
        }
    }

    @inline(__always)
    private mutating func take(_ count: Int) throws -> Int {
        if bitCount < count { refill() }
        guard bitCount >= count else { throw truncated }
        let value = Int(bits & ((1 << UInt64(count)) - 1))
        bits >>= UInt64(count)
        bitCount -= count
        return value
    }

    private var truncated: MartletError {
        MartletError(.corrupt, "deflate: the data end after \(input.count) bytes, more are needed")
    }

    @inline(__always)
    private mutating func symbol(
        _ fast: UnsafeBufferPointer<UInt32>, _ table: HuffmanTable
    ) throws -> Int {
        if bitCount < HuffmanTable.longestCode { refill() }
        let entry = fast[Int(bits & ((1 << UInt64(HuffmanTable.fastBitCount)) - 1))]
        let length = Int(entry & 15)
        if length != 0, length <= bitCount {
            bits >>= UInt64(length)
            bitCount -= length
            return Int(entry >> 4)
        }
        return try longSymbol(table)
    }

    private mutating func longSymbol(_ table: HuffmanTable) throws -> Int {
        var code = 0
        var first = 0
        var index = 0
        for length in 1...HuffmanTable.longestCode {
            code |= try take(1)
            let count = table.countOfLength[length]
            if code - first < count { return Int(table.symbols[index + code - first]) }
            index += count
            first = (first + count) << 1
            code <<= 1
        }
        throw MartletError(.corrupt, "deflate: the bits before byte \(next) are no code")
    }

    // MARK: Blocks

    private mutating func stored(_ piece: (UnsafeRawBufferPointer) throws -> Void) throws {
        _ = try take(bitCount & 7)
        let count = try take(16)
        let inverse = try take(16)
        guard count == inverse ^ 0xffff else {
            throw MartletError(
                .corrupt, "deflate: a stored block's length \(count) fails its check")
        }
        for _ in 0..<count { try emit(UInt8(take(8)), piece) }
    }

    private mutating func compressed(
        _ literals: HuffmanTable, _ distances: HuffmanTable,
        _ piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        try literals.fast.withUnsafeBufferPointer { fastLiterals in
            try distances.fast.withUnsafeBufferPointer { fastDistances in
                while true {
                    let symbol = try symbol(fastLiterals, literals)
                    if symbol < 256 {
                        try emit(UInt8(symbol), piece)
                        continue
                    }
                    if symbol == 256 { return }
                    guard symbol < 286 else {
                        throw MartletError(
                            .corrupt, "deflate: length symbol \(symbol), at most 285")
                    }
                    let row = symbol - 257
                    let length = try lengthBase[row] + take(lengthExtra[row])
                    let code = try self.symbol(fastDistances, distances)
                    guard code < 30 else {
                        throw MartletError(.corrupt, "deflate: distance symbol \(code), at most 29")
                    }
                    let distance = try distanceBase[code] + take(distanceExtra[code])
                    try copy(length, distance, piece)
                }
            }
        }
    }

    private mutating func readCodes() throws -> (HuffmanTable, HuffmanTable) {
        let literalCount = try take(5) + 257
        let distanceCount = try take(5) + 1
        let lengthCount = try take(4) + 4
        guard literalCount <= 286, distanceCount <= 30 else {
            throw MartletError(
                .corrupt, "deflate: \(literalCount) and \(distanceCount) codes, at most 286 and 30")
        }
        var lengths = [UInt8](repeating: 0, count: 19)
        for i in 0..<lengthCount { lengths[codeOrder[i]] = UInt8(try take(3)) }
        let code = try HuffmanTable(lengths[...], name: "length", allowsIncomplete: false)
        let wanted = literalCount + distanceCount
        lengths = []
        while lengths.count < wanted {
            let symbol = try code.fast.withUnsafeBufferPointer { try self.symbol($0, code) }
            var value: UInt8 = 0
            var count = 1
            switch symbol {
            case 16:
                guard let last = lengths.last else {
                    throw MartletError(.corrupt, "deflate: a repeated length before the first")
                }
                value = last
                count = try take(2) + 3
            case 17: count = try take(3) + 3
            case 18: count = try take(7) + 11
            default: value = UInt8(symbol)
            }
            guard lengths.count + count <= wanted else {
                throw MartletError(.corrupt, "deflate: more than \(wanted) code lengths")
            }
            for _ in 0..<count { lengths.append(value) }
        }
        guard lengths[256] > 0 else {
            throw MartletError(.corrupt, "deflate: a block has no code for its end")
        }
        return (
            try HuffmanTable(lengths[..<literalCount], name: "literal", allowsIncomplete: true),
            try HuffmanTable(
                Array(lengths[literalCount...])[...], name: "distance", allowsIncomplete: true)
        )
    }

    // MARK: Output

    @inline(__always)
    private mutating func emit(
        _ byte: UInt8, _ piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        guard total < limit else { throw tooLong }
        output[position] = byte
        position += 1
        total += 1
        if position >= Self.windowSize + Self.pieceSize { try flush(keepingWindow: true, piece) }
    }

    private mutating func copy(
        _ length: Int, _ distance: Int, _ piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        guard distance <= total, distance <= position else {
            throw MartletError(
                .corrupt, "deflate: a copy from \(distance) bytes back after \(total) bytes")
        }
        guard length <= limit - total else { throw tooLong }
        // Bytes may overlap on purpose: a copy from one byte back repeats it.
        for i in 0..<length { output[position + i] = output[position + i - distance] }
        position += length
        total += length
        if position >= Self.windowSize + Self.pieceSize { try flush(keepingWindow: true, piece) }
    }

    private mutating func flush(
        keepingWindow: Bool, _ piece: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        if position > flushed {
            try piece(UnsafeRawBufferPointer(start: output + flushed, count: position - flushed))
        }
        flushed = position
        guard keepingWindow, position > Self.windowSize else { return }
        output.update(from: output + (position - Self.windowSize), count: Self.windowSize)
        position = Self.windowSize
        flushed = Self.windowSize
    }

    private var tooLong: MartletError {
        MartletError(.corrupt, "deflate: the data give more than the \(limit) bytes announced")
    }
}

private let fixedLiterals = Result {
    let lengths =
        [UInt8](repeating: 8, count: 144) + [UInt8](repeating: 9, count: 112)
        + [UInt8](repeating: 7, count: 24) + [UInt8](repeating: 8, count: 8)
    return try HuffmanTable(lengths[...], name: "fixed literal", allowsIncomplete: false)
}
private let fixedDistances = Result {
    try HuffmanTable(
        [UInt8](repeating: 5, count: 32)[...], name: "fixed distance", allowsIncomplete: false)
}
private let codeOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
private let lengthBase = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
]
private let lengthExtra = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
]
private let distanceBase = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049,
    3073, 4097, 6145, 8193, 12_289, 16_385, 24_577,
]
private let distanceExtra = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
]
