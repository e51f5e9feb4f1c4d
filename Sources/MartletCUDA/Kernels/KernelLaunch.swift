// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A kernel with its arguments: what one call of the driver starts.
package struct KernelLaunch: Sendable {
    /// Blocks for given counts; a launch of none is left out.
    package typealias Grid = @Sendable (Dimension.Values) -> (x: Int, y: Int, z: Int)

    /// Where the code is.
    package var module: KernelModule
    /// Name of the kernel.
    package var kernel: String
    /// Its one argument, a struct.
    package var arguments: ArgumentBytes
    /// Threads of a block.
    package var block: Int
    /// Shared memory that it asks for beyond its own declarations, in bytes.
    package var sharedBytes = 0
    /// Whether only its code says what shared memory it needs, not `sharedBytes`.
    package var isSizedByCode = false
    /// Blocks.
    package var grid: Grid

    /// What mends code of kernels that are not as their sources are.
    static let rebuild = "Build the engine again with this version of Martlet"
}

/// The bytes of an argument struct, laid out by the rules of C.
package struct ArgumentBytes: Sendable {
    /// The bytes so far.
    package private(set) var bytes: [UInt8] = []
    /// Matrices that the driver encodes, with the places of their 128 bytes.
    private(set) var matrices: [(offset: Int, matrix: TensorMatrix)] = []

    /// No fields yet.
    package init() {}

    /// Appends a field at its alignment.
    package mutating func add<Value: BitwiseCopyable>(_ value: Value) {
        let alignment = MemoryLayout<Value>.alignment
        while bytes.count % alignment != 0 { bytes.append(0) }
        withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    }

    /// Appends a `TensorMap`: zeros until the driver encodes it; nil for one that is not used.
    mutating func add(_ matrix: TensorMatrix?) {
        while bytes.count % 64 != 0 { bytes.append(0) }
        if let matrix { matrices.append((bytes.count, matrix)) }
        bytes += [UInt8](repeating: 0, count: 128)
    }

    /// Appends an integer field.
    package mutating func add(int value: Int) { add(Int32(clamping: value)) }

    /// The bytes, with room for the struct's end.
    package var padded: [UInt8] {
        bytes + [UInt8](repeating: 0, count: (64 - bytes.count % 64) % 64)
    }
}

extension ArgumentBytes {
    /// `RowCount`.
    mutating func add(rows: Dimension) {
        add(int: rows.constant)
        add(int: rows.tokens)
        add(int: rows.requests)
        add(int: rows.logitRows)
    }
    /// `Rows`; nil for absent ones.
    mutating func add(_ view: DeviceRows?) {
        add(view?.address ?? UInt64(0))
        add(Int64(view?.stride ?? 0))
    }
    /// `Vector`; nil for an absent one.
    mutating func add(_ vector: DeviceVector?) {
        add(vector?.address ?? UInt64(0))
        add(Int32(vector.map { DeviceType($0.type).rawValue } ?? 0))
        add(Int32(0))
    }
}

/// A matrix of 16-bit numbers in device memory that kernels copy boxes of: `box rows` x 64 columns.
struct TensorMatrix: Sendable {
    let address: UInt64
    let type: DType
    let columns: Int
    let rows: Int
    /// Elements from a row to the next.
    let stride: Int
    let boxRows: Int
}

/// How kernels name number formats.
enum DeviceType: Int32 {
    case f32 = 0
    case f16 = 1
    case bf16 = 2

    init(_ type: DType) {
        switch type {
        case .f16: self = .f16
        case .bf16: self = .bf16
        default: self = .f32
        }
    }

    /// The definition's text.
    static func define(_ type: DType) -> String { "\(DeviceType(type).rawValue)" }
}

/// Rows of a buffer in device memory.
struct DeviceRows: Equatable {
    let address: UInt64
    /// Elements from a row to the next.
    let stride: Int
    let columns: Int
    let rows: Dimension
    let type: DType

    /// The same rows from a later column on.
    func columns(from start: Int, count: Int) -> DeviceRows {
        DeviceRows(
            address: address + UInt64(start * type.byteCount), stride: stride, columns: count,
            rows: rows, type: type)
    }
}

/// A vector of parameters in device memory.
struct DeviceVector {
    let address: UInt64
    let count: Int
    let type: DType
}
