// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

/// A row count, affine in T, B and O, checked at load so that evaluating it cannot overflow.
struct RowCount: Sendable, Hashable {
    private let dimension: Dimension
    private let context: Int

    /// - Throws: `Refusal` for negative factors or a count beyond 2^31 at the limits.
    init(_ dimension: Dimension, limits: Dimension.Values) throws {
        let factors = [
            dimension.constant, dimension.tokens, dimension.requests, dimension.logitRows,
            dimension.context,
        ]
        guard factors.allSatisfy({ $0 >= 0 }), let largest = dimension.evaluate(limits),
            largest <= 1 << 31
        else { throw Refusal("a row count of \(dimension) is out of range") }
        self.dimension = dimension
        context = dimension.context * limits.context
        maximum = largest
    }

    /// The largest count.
    let maximum: Int

    /// The count in a step.
    @inline(__always)
    func callAsFunction(_ step: StepState) -> Int {
        dimension.constant + dimension.tokens * step.tokenCount
            + dimension.requests * step.requestCount + dimension.logitRows * step.logitRowCount
            + context
    }
}

/// Rows in memory: where they start, how far apart they are, what they hold.
///
/// `@unchecked Sendable`: an address; the plan's order and barriers decide who writes it.
struct RowView: @unchecked Sendable {
    /// First element of row 0.
    var base: UnsafeMutableRawPointer
    /// Bytes between rows.
    var stride: Int
    /// Elements of a row.
    var columns: Int
    /// Rows.
    var rows: RowCount
    /// Format of the elements.
    var format: ElementFormat

    /// The first element of f32 rows.
    var floats: UnsafeMutablePointer<Float> { base.assumingMemoryBound(to: Float.self) }
    /// Floats between f32 rows.
    var floatStride: Int { stride / 4 }
    /// A row of f32.
    @inline(__always)
    func row(_ index: Int) -> UnsafeMutablePointer<Float> { floats + index * floatStride }
    /// A row of anything.
    @inline(__always)
    func raw(_ index: Int) -> UnsafeMutableRawPointer { base + index * stride }

    /// This view as the result of a row kernel: f32 or int8g64.
    var output: martlet_row_output {
        if format == .activation(.int8g64) {
            return martlet_row_output(
                f32: nil, f32_stride: 0, int8g64: base.assumingMemoryBound(to: UInt8.self),
                int8g64_stride: stride)
        }
        return martlet_row_output(
            f32: floats, f32_stride: floatStride, int8g64: nil, int8g64_stride: 0)
    }
}
