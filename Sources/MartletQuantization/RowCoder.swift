// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Synchronization

/// Runs a codec over the rows of a matrix, in parallel, and stores the canonical form.
struct RowCoder {
    let scheme: QuantizationScheme
    let shape: [Int]
    let codec: any WeightCodec
    /// Number of the first row, for messages.
    var firstRow = 0

    /// Memory that rows are written to side by side.
    ///
    /// `@unchecked Sendable`: each row is written by one thread only.
    private struct Target: @unchecked Sendable {
        let codes: UnsafeMutableRawBufferPointer
        let scales: UnsafeMutableRawBufferPointer
        let zeros: UnsafeMutableRawBufferPointer
    }

    private static let rowsPerPiece = 16

    /// Codes a matrix; each thread widens its own rows, so that no f32 copy of the whole exists.
    ///
    /// - Throws: `MartletError` `.corrupt` naming row and column of a weight that is not finite,
    ///   `.unsupported` for a scale beyond the range of its type.
    func encode(_ tensor: TensorData) throws -> QuantizedTensor {
        let (rowCount, columns) = (shape[0], shape[1])
        let groups = scheme.groupCount(inputs: columns)
        let codeBytes = scheme.bits == 4 ? (columns + 1) / 2 : columns
        let scaleBytes = scheme.scaleType.byteCount
        let zeroBytes = scheme.zero == .none ? 0 : scheme.zero == .integer ? 1 : scaleBytes
        let pieces = (rowCount + Self.rowsPerPiece - 1) / Self.rowsPerPiece
        let fault = Mutex<(piece: Int, error: any Error)?>(nil)
        var (scales, zeros) = (ByteView(), ByteView())
        let codes = try ByteView(count: rowCount * codeBytes) { codes in
            scales = try ByteView(count: rowCount * groups * scaleBytes) { scales in
                zeros = try ByteView(count: rowCount * groups * zeroBytes) { zeros in
                    let target = Target(codes: codes, scales: scales, zeros: zeros)
                    Parallel.forEach(pieces) { piece in
                        let start = piece * Self.rowsPerPiece
                        let rows = start..<min(start + Self.rowsPerPiece, rowCount)
                        do { try encode(tensor, rows, to: target) } catch {
                            fault.withLock { first in
                                if let known = first, known.piece < piece { return }
                                first = (piece, error)
                            }
                        }
                    }
                    if let fault = fault.withLock({ $0 }) { throw fault.error }
                }
            }
        }
        // Finite weights may still need a scale or minimum beyond the range of its type.
        try check(scales, "scale", groups)
        if scheme.zero == .floatMinimum { try check(zeros, "minimum", groups) }
        // One scale for the whole tensor: codecs work by row, so the caller's scheme must not ask it.
        return try QuantizedTensor(
            scheme: scheme, shape: shape, codes: codes, scales: scales, zeros: zeros)
    }

    private func encode(_ tensor: TensorData, _ rows: Range<Int>, to target: Target) throws {
        let columns = shape[1], groups = scheme.groupCount(inputs: columns)
        let codeBytes = scheme.bits == 4 ? (columns + 1) / 2 : columns
        guard case .plain(let part) = try WeightValue.plain(tensor).rows(rows) else { return }
        let values = try part.floats()
        if let index = values.firstIndex(where: { !$0.isFinite }) {
            throw MartletError(
                .corrupt,
                "the weight at row \(firstRow + rows.lowerBound + index / max(columns, 1)), "
                    + "column \(index % max(columns, 1)) is \(values[index])")
        }
        var codes = [UInt8](repeating: 0, count: columns)
        var scales = [Float](repeating: 0, count: groups)
        var zeros = [Float](repeating: 0, count: groups)
        for (place, row) in rows.enumerated() {
            values.withUnsafeBufferPointer { values in
                let slice = UnsafeBufferPointer(
                    rebasing: values[place * columns..<(place + 1) * columns])
                codec.encode(
                    row: slice, scheme: scheme, codes: &codes, scales: &scales, zeros: &zeros)
            }
            Self.store(codes, target.codes, row * codeBytes, bits: scheme.bits)
            for group in 0..<groups {
                let index = row * groups + group
                Self.store(scales[group], target.scales, index, scheme.scaleType)
                switch scheme.zero {
                case .none: break
                case .integer:
                    target.zeros.storeBytes(
                        of: UInt8(max(0, min(255, zeros[group]))), toByteOffset: index,
                        as: UInt8.self)
                case .floatMinimum:
                    Self.store(zeros[group], target.zeros, index, scheme.scaleType)
                }
            }
        }
    }

    private func check(_ values: ByteView, _ part: String, _ groups: Int) throws {
        try values.withUnsafeBytes { memory in
            for index in 0..<shape[0] * groups
            where !Self.load(memory, index, scheme.scaleType).isFinite {
                throw MartletError(
                    .unsupported,
                    "the \(part) of row \(firstRow + index / groups), group \(index % groups) exceeds "
                        + "\(scheme.scaleType.rawValue), the scale type of \(scheme)",
                    mend: "Use a scheme with f32 scales, such as int8")
            }
        }
    }

    private static func store(
        _ codes: [UInt8], _ target: UnsafeMutableRawBufferPointer, _ start: Int, bits: Int
    ) {
        if bits == 8 {
            codes.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: target[start...]).copyMemory(from: $0)
            }
        } else {
            for index in stride(from: 0, to: codes.count, by: 2) {
                let high = index + 1 < codes.count ? codes[index + 1] : 0
                target[start + index / 2] = codes[index] | (high << 4)
            }
        }
    }

    private static func store(
        _ value: Float, _ target: UnsafeMutableRawBufferPointer, _ index: Int, _ type: DType
    ) {
        switch type {
        case .f16: target.storeBytes(of: Half.bits(value), toByteOffset: 2 * index, as: UInt16.self)
        case .bf16:
            target.storeBytes(
                of: BFloat16(value).bitPattern, toByteOffset: 2 * index, as: UInt16.self)
        default: target.storeBytes(of: value, toByteOffset: 4 * index, as: Float.self)
        }
    }

    private static func load(
        _ memory: UnsafeRawBufferPointer, _ index: Int, _ type: DType
    ) -> Float {
        switch type {
        case .f16: Half.float(bits: memory.load(fromByteOffset: 2 * index, as: UInt16.self))
        case .bf16:
            Float(
                BFloat16(bitPattern: memory.load(fromByteOffset: 2 * index, as: UInt16.self)))
        default: memory.load(fromByteOffset: 4 * index, as: Float.self)
        }
    }

    /// What numbers are multiplied with to get codes: 0 for scales of 0 and those too small to have a
    /// finite reciprocal, whose groups (below 1e-36) are coded as zero.
    static func inverse(_ scale: Float) -> Float {
        let inverse = 1 / scale
        return inverse.isFinite ? inverse : 0
    }

    /// A scale or minimum as it will be read back.
    static func rounded(_ value: Float, _ type: DType) -> Float {
        switch type {
        case .f16: Half.float(bits: Half.bits(value))
        case .bf16: Float(BFloat16(value))
        default: value
        }
    }
}
