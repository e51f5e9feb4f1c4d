// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A value that the interpreter computed: elements in row-major order, sizes and format.
package struct ReferenceValue: Sendable {
    /// Elements by kind.
    package enum Elements: Sendable {
        /// Plain numbers, rounded to their dtype and widened to f32, or decoded weights.
        case floats([Float])
        /// Ids, positions and row indices.
        case integers([Int32])
        /// `int8g64`: signed codes and one scale per 64 columns of a row.
        case codes([Int8], scales: [Float])
        /// The cache after a write.
        case cache
    }

    /// What the elements stand for in the graph.
    package let format: ElementFormat
    /// Sizes, outermost first.
    package let shape: [Int]
    /// The elements.
    package let elements: Elements

    init(_ format: ElementFormat, _ shape: [Int], _ elements: Elements) {
        self.format = format
        self.shape = shape
        self.elements = elements
    }

    /// Plain numbers, rounded to the dtype.
    ///
    /// - Throws: `MartletError` `.unsupported` for dtypes other than f32, f16 and bf16.
    init(_ dtype: DType, _ shape: [Int], _ values: [Float]) throws {
        self.init(.plain(dtype), shape, .floats(try Self.round(values, to: dtype)))
    }

    /// Columns: the innermost size; 1 for a single number.
    package var columnCount: Int { shape.last ?? 1 }
    /// Rows: the product of all other sizes.
    package var rowCount: Int { shape.dropLast().reduce(1, *) }

    /// All elements as f32; codes are decoded as `code * scale`.
    ///
    /// - Throws: `MartletError` `.unsupported` for a cache.
    package func floats() throws -> [Float] {
        switch elements {
        case .floats(let values): return values
        case .integers(let values): return values.map { Float($0) }
        case .codes(let codes, let scales):
            return GroupedCodes.decode(codes, scales: scales, columns: columnCount)
        case .cache: throw MartletError(.unsupported, "a cache has no elements to read")
        }
    }

    /// Ids, positions or row indices.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if the value does not hold integers.
    package func integers() throws -> [Int32] {
        guard case .integers(let values) = elements else {
            throw MartletError(.shapeMismatch, "\(format) where integers are needed")
        }
        return values
    }

    /// All elements as f32, cut into rows.
    ///
    /// - Throws: `MartletError` `.unsupported` for a cache.
    package func rows() throws -> [[Float]] {
        let values = try floats()
        let columns = columnCount
        return (0..<rowCount).map { Array(values[$0 * columns..<($0 + 1) * columns]) }
    }

    /// Numbers rounded to nearest even, as a stored type would hold them.
    ///
    /// - Throws: `MartletError` `.unsupported` for dtypes other than f32, f16 and bf16.
    static func round(_ values: [Float], to dtype: DType) throws -> [Float] {
        switch dtype {
        case .f32: return values
        case .f16: return values.map { Half.float(bits: Half.bits($0)) }
        case .bf16: return values.map { Float(BFloat16($0)) }
        default:
            throw MartletError(.unsupported, "the reference does not compute in \(dtype.rawValue)")
        }
    }
}
