// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

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
        let codes: UnsafeMutablePointer<UInt8>
        let scales: UnsafeMutableRawPointer
        let zeros: UnsafeMutableRawPointer
    }

    private static let rowsPerPiece = 16

    func encode(_ values: [Float]) throws -> QuantizedTensor {
        let (rowCount, columns) = (shape[0], shape[1])
        let groups = scheme.groupCount(inputs: columns)
        let codeBytes = scheme.bits == 4 ? (columns + 1) / 2 : columns
        let scaleBytes = scheme.scaleType.byteCount
        let zeroBytes = scheme.zero == .none ? 0 : scheme.zero == .integer ? 1 : scaleBytes
        let storage = (
            codes: UnsafeMutableRawPointer.allocate(
                byteCount: max(rowCount * codeBytes, 1), alignment: 64),
            scales: UnsafeMutableRawPointer.allocate(
                byteCount: max(rowCount * groups * scaleBytes, 1), alignment: 64),
            zeros: UnsafeMutableRawPointer.allocate(
                byteCount: max(rowCount * groups * zeroBytes, 1), alignment: 64)
        )
        defer {
            storage.codes.deallocate()
            storage.scales.deallocate()
            storage.zeros.deallocate()
        }
        let target = Target(
            codes: storage.codes.assumingMemoryBound(to: UInt8.self), scales: storage.scales,
            zeros: storage.zeros)
        let pieces = (rowCount + Self.rowsPerPiece - 1) / Self.rowsPerPiece
        let (scheme, codec) = (scheme, codec)
        Parallel.forEach(pieces) { piece in
            var codes = [UInt8](repeating: 0, count: columns)
            var scales = [Float](repeating: 0, count: groups)
            var zeros = [Float](repeating: 0, count: groups)
            let first = piece * Self.rowsPerPiece
            for row in first..<min(first + Self.rowsPerPiece, rowCount) {
                values.withUnsafeBufferPointer { values in
                    let slice = UnsafeBufferPointer(
                        rebasing: values[row * columns..<(row + 1) * columns])
                    codec.encode(
                        row: slice, scheme: scheme, codes: &codes, scales: &scales, zeros: &zeros)
                }
                Self.store(codes, target.codes + row * codeBytes, bits: scheme.bits)
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
        // Finite weights may still need a scale or minimum beyond the range of its type.
        func check(_ memory: UnsafeMutableRawPointer, _ part: String) throws {
            for index in 0..<rowCount * groups
            where !Self.load(memory, index, scheme.scaleType).isFinite {
                throw MartletError(
                    .unsupported,
                    "the \(part) of row \(firstRow + index / groups), group \(index % groups) exceeds "
                        + "\(scheme.scaleType.rawValue), the scale type of \(scheme)",
                    mend: "Use a scheme with f32 scales, such as int8")
            }
        }
        try check(storage.scales, "scale")
        if scheme.zero == .floatMinimum { try check(storage.zeros, "minimum") }
        func view(_ memory: UnsafeMutableRawPointer, _ count: Int) -> ByteView {
            ByteView(copying: UnsafeRawBufferPointer(start: memory, count: count))
        }
        // One scale for the whole tensor: codecs work by row, so the caller's scheme must not ask it.
        return try QuantizedTensor(
            scheme: scheme, shape: shape, codes: view(storage.codes, rowCount * codeBytes),
            scales: view(storage.scales, rowCount * groups * scaleBytes),
            zeros: view(storage.zeros, rowCount * groups * zeroBytes))
    }

    private static func store(_ codes: [UInt8], _ target: UnsafeMutablePointer<UInt8>, bits: Int) {
        if bits == 8 {
            for (index, code) in codes.enumerated() { target[index] = code }
        } else {
            for index in stride(from: 0, to: codes.count, by: 2) {
                let high = index + 1 < codes.count ? codes[index + 1] : 0
                target[index / 2] = codes[index] | (high << 4)
            }
        }
    }

    private static func store(
        _ value: Float, _ target: UnsafeMutableRawPointer, _ index: Int, _ type: DType
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
        _ memory: UnsafeMutableRawPointer, _ index: Int, _ type: DType
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
