// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletModels

/// Random weights made directly in the format that is wanted, rows in parallel.
///
/// Word i of a weight is a hash of seed, name and i, so a weight does not depend on threads or on
/// the pieces it is made in. Matrices have variance 1/K, so that activations keep their size.
struct PresetWeights: DirectWeightProvider {
    /// How a checkpoint would store the matrices.
    let dtype: DType
    let seed: UInt64

    init(dtype: DType = .bf16, seed: UInt64 = 0) {
        self.dtype = dtype
        self.seed = seed
    }

    func storage(of name: String, shape: [Int]) -> ElementFormat {
        .plain(shape.count == 1 ? .f32 : dtype)
    }

    func weight(_ name: String, shape: [Int]) throws -> WeightValue {
        if shape.count == 1 { return try vector(name, count: shape[0]) }
        return try weight(name, rows: 0..<(shape.first ?? 0), shape: shape, format: .plain(dtype))
    }

    func weight(
        _ name: String, rows: Range<Int>, shape: [Int], format: ElementFormat
    ) throws -> WeightValue {
        guard shape.count == 2, shape[1] > 0 else {
            throw MartletError(.unsupported, "'\(name)' has shape \(shape), presets have matrices")
        }
        let columns = shape[1]
        let words = RandomWords(seed: seed, name: name)
        // Of uniform numbers in -1 ... 1 the variance is 1/3.
        let spread = (3 / Float(columns)).squareRoot()
        switch format {
        case .plain(.f32):
            let scale = spread * 0x1p-31
            let bytes = words.rows(rows, byteCount: 4 * columns) { word in
                let low = Float(Int32(truncatingIfNeeded: word)) * scale
                let high = Float(Int32(truncatingIfNeeded: word >> 32)) * scale
                return UInt64(low.bitPattern) | UInt64(high.bitPattern) << 32
            }
            return .plain(
                try TensorData(dtype: .f32, shape: [rows.count, columns], bytes: bytes))
        case .plain(let type) where type == .bf16 || type == .f16:
            let table = HalfTable(spread: spread, type)
            let bytes = words.rows(rows, byteCount: 2 * columns) { table.numbers($0) }
            return .plain(try TensorData(dtype: type, shape: [rows.count, columns], bytes: bytes))
        case .weight(let scheme):
            return .quantized(try coded(words, scheme, rows: rows, columns: columns))
        default: throw MartletError(.unsupported, "random weights cannot be stored as \(format)")
        }
    }

    /// Codes are the random bits themselves.
    private func coded(
        _ words: RandomWords, _ scheme: QuantizationScheme, rows: Range<Int>, columns: Int
    ) throws -> QuantizedTensor {
        let codes = words.rows(
            rows, byteCount: scheme.bits == 4 ? (columns + 1) / 2 : columns
        ) { $0 }
        // The deviation of uniform codes is their count over the root of 12.
        let scale = (12 / Float(columns)).squareRoot() / Float(1 << scheme.bits)
        let middle = Float(1 << (scheme.bits - 1))
        let count =
            scheme.group == .tensor ? 1 : rows.count * scheme.groupCount(inputs: columns)
        let scales = try TensorData([Float](repeating: scale, count: count), shape: [count])
            .converted(to: scheme.scaleType).bytes
        let zeros: ByteView =
            switch scheme.zero {
            case .none: ByteView()
            case .integer: ByteView([UInt8](repeating: UInt8(middle), count: count))
            case .floatMinimum:
                try TensorData([Float](repeating: -scale * middle, count: count), shape: [count])
                    .converted(to: scheme.scaleType).bytes
            }
        return try QuantizedTensor(
            scheme: scheme, shape: [rows.count, columns], codes: codes, scales: scales,
            zeros: zeros)
    }

    /// Norm weights about 1, biases about 0.
    private func vector(_ name: String, count: Int) throws -> WeightValue {
        let words = RandomWords(seed: seed, name: name)
        let middle: Float = name.hasSuffix("bias") ? 0 : 1
        let values = (0..<count).map { index in
            middle + 0.1 * Float(Int32(truncatingIfNeeded: words.word(index))) * 0x1p-31
        }
        return .plain(try TensorData(values, shape: [count]))
    }
}

/// A sequence of random words that can be entered anywhere (SplitMix64 of a counter).
private struct RandomWords: Sendable {
    private let start: UInt64

    init(seed: UInt64, name: String) {
        start = name.utf8.reduce(seed &+ 0x9e37_79b9_7f4a_7c15) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
    }

    @inline(__always)
    func word(_ index: Int) -> UInt64 {
        var word = start &+ UInt64(truncatingIfNeeded: index) &* 0x9e37_79b9_7f4a_7c15
        word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
        return word ^ (word >> 31)
    }

    /// Rows of so many bytes, each of its own run of words, changed by the closure.
    func rows(
        _ rows: Range<Int>, byteCount: Int, _ change: @escaping @Sendable (UInt64) -> UInt64
    ) -> ByteView {
        ByteView(count: rows.count * byteCount) { memory in
            let target = Target(base: memory.baseAddress)
            let (wholeWords, rest) = (byteCount / 8, byteCount % 8)
            let rowWords = wholeWords + (rest > 0 ? 1 : 0)
            let piece = max(1, (64 << 10) / max(byteCount, 1))
            Parallel.forEach((rows.count + piece - 1) / piece) { number in
                guard let base = target.base else { return }
                for row in number * piece..<min((number + 1) * piece, rows.count) {
                    let to = base + row * byteCount
                    let first = (rows.lowerBound + row) * rowWords
                    for index in 0..<wholeWords {
                        to.storeBytes(
                            of: change(word(first + index)).littleEndian, toByteOffset: 8 * index,
                            as: UInt64.self)
                    }
                    guard rest > 0 else { continue }
                    withUnsafeBytes(of: change(word(first + wholeWords)).littleEndian) {
                        (to + 8 * wholeWords).copyMemory(
                            from: $0.baseAddress ?? UnsafeRawPointer(to), byteCount: rest)
                    }
                }
            }
        }
    }

    /// Memory whose rows are written by one thread each.
    private struct Target: @unchecked Sendable {
        let base: UnsafeMutableRawPointer?
    }
}

/// 4096 numbers of a spread as 16-bit patterns: looked up, since rounding each would take longer.
private struct HalfTable: Sendable {
    private let patterns: [UInt16]

    init(spread: Float, _ type: DType) {
        patterns = (0..<4096).map { index in
            let value = spread * ((Float(index) + 0.5) / 2048 - 1)
            return type == .bf16 ? BFloat16(value).bitPattern : Half.bits(value)
        }
    }

    /// Four numbers.
    @inline(__always)
    func numbers(_ word: UInt64) -> UInt64 {
        patterns.withUnsafeBufferPointer { patterns in
            var result: UInt64 = 0
            for lane in 0..<4 {
                let index = Int(truncatingIfNeeded: (word >> UInt64(16 * lane)) & 4095)
                result |= UInt64(patterns[index]) << UInt64(16 * lane)
            }
            return result
        }
    }
}
