// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A plain tensor in memory: type, shape and row-major bytes.
public struct TensorData: Sendable {
    /// Element type.
    public let dtype: DType
    /// Sizes, outermost first.
    public let shape: [Int]
    /// Row-major elements, little-endian.
    public let bytes: ByteView

    /// Checks that the bytes hold exactly the shape's elements.
    ///
    /// - Parameters:
    ///   - dtype: Element type.
    ///   - shape: Sizes, outermost first; none negative.
    ///   - bytes: Row-major elements.
    /// - Throws: `MartletError` `.shapeMismatch` if the byte count does not fit the shape.
    public init(dtype: DType, shape: [Int], bytes: ByteView) throws {
        guard let count = Self.elementCount(shape),
            case let (needed, overflow) = count.multipliedReportingOverflow(by: dtype.byteCount),
            !overflow, needed == bytes.count
        else {
            throw MartletError(
                .shapeMismatch,
                "a \(dtype.rawValue) tensor of shape \(shape) does not fit \(bytes.count) bytes")
        }
        self.dtype = dtype
        self.shape = shape
        self.bytes = bytes
    }

    /// Makes an f32 tensor of given values.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if the count does not fit the shape.
    public init(_ values: [Float], shape: [Int]) throws {
        try self.init(dtype: .f32, shape: shape, bytes: ByteView(values))
    }

    /// Elements of a shape, or nil where a size is negative or the product exceeds `Int`.
    public static func elementCount(_ shape: [Int]) -> Int? {
        var count = 1
        for size in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            if overflow || size < 0 { return nil }
            count = product
        }
        return count
    }

    /// Elements in all.
    public var count: Int { bytes.count / dtype.byteCount }

    /// All elements widened or rounded to f32.
    ///
    /// - Throws: `MartletError` `.unsupported` for types with no such conversion (f8, bool).
    public func floats() throws -> [Float] {
        let count = count
        return try bytes.withUnsafeBytes { raw in
            func read<E: BitwiseCopyable>(_ type: E.Type, _ convert: (E) -> Float) -> [Float] {
                [Float](unsafeUninitializedCapacity: count) { buffer, filled in
                    for i in 0..<count {
                        let value = raw.loadUnaligned(
                            fromByteOffset: i * MemoryLayout<E>.stride, as: type)
                        buffer.initializeElement(at: i, to: convert(value))
                    }
                    filled = count
                }
            }
            switch dtype {
            case .f32: return read(Float.self) { $0 }
            case .f16: return read(UInt16.self) { Half.float(bits: $0) }
            case .bf16: return read(UInt16.self) { Float(BFloat16(bitPattern: $0)) }
            case .f64: return read(Double.self) { Float($0) }
            case .i64: return read(Int64.self) { Float($0) }
            case .i32: return read(Int32.self) { Float($0) }
            case .i16: return read(Int16.self) { Float($0) }
            case .i8: return read(Int8.self) { Float($0) }
            case .u64: return read(UInt64.self) { Float($0) }
            case .u32: return read(UInt32.self) { Float($0) }
            case .u16: return read(UInt16.self) { Float($0) }
            case .u8: return read(UInt8.self) { Float($0) }
            case .f8e4m3, .f8e5m2, .bool:
                throw MartletError(.unsupported, "no conversion of \(dtype.rawValue) to f32")
            }
        }
    }

    /// The same values stored as another floating-point type, rounded to nearest even.
    ///
    /// - Throws: `MartletError` `.unsupported` for targets other than f32, f16, bf16.
    public func converted(to target: DType) throws -> TensorData {
        if target == dtype { return self }
        let values = try floats()
        switch target {
        case .f32: return try TensorData(values, shape: shape)
        case .f16:
            return try TensorData(
                dtype: .f16, shape: shape, bytes: ByteView(values.map { Half.bits($0) }))
        case .bf16:
            return try TensorData(
                dtype: .bf16, shape: shape, bytes: ByteView(values.map { BFloat16($0).bitPattern }))
        default:
            throw MartletError(.unsupported, "no conversion of f32 to \(target.rawValue)")
        }
    }
}
