// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// An element type as stored in memory or in a file.
///
/// The raw value is the name used in graphs, plans and on the command line.
public enum DType: String, Sendable, Hashable, CaseIterable, Codable {
    case f64, f32, f16, bf16
    case f8e4m3, f8e5m2
    case i64, i32, i16, i8
    case u64, u32, u16, u8
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
