// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// An element type as stored in memory or in a file.
///
/// The raw value is the name used in graphs, plans and on the command line.
public enum DType: String, Sendable, Hashable, CaseIterable, Codable {
    /// IEEE 754 numbers of 8, 4 and 2 bytes, and the upper half of f32.
    case f64, f32, f16, bf16
    /// Numbers of a byte: 4 bits of exponent and 3 of fraction, or 5 and 2.
    case f8e4m3, f8e5m2
    /// Signed integers.
    case i64, i32, i16, i8
    /// Unsigned integers.
    case u64, u32, u16, u8
    /// A byte that is 0 or 1.
    case bool

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .f64, .i64, .u64: 8
        case .f32, .i32, .u32: 4
        case .f16, .bf16, .i16, .u16: 2
        case .f8e4m3, .f8e5m2, .i8, .u8, .bool: 1
        }
    }

    /// Whether elements are floating-point numbers.
    public var isFloatingPoint: Bool {
        switch self {
        case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2: true
        default: false
        }
    }
}
