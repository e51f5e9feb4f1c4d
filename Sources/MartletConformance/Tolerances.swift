// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// How far a backend may be from the reference, each with its reason.
///
/// An error is |value - reference|, divided by the largest |reference| of the tensor: sums of
/// products are as exact as their largest terms, not as their results.
package enum Tolerances {
    /// Moves, additions and products of single elements: one rounding, the same one everywhere.
    package static let exact = 0.0
    /// Short formulas with exp, tanh, erf or a root: a few units in the last place of f32, and
    /// polynomials good to about 1e-6.
    package static let formula = 5e-6
    /// Sums of up to a thousand products in f32, one after another, against f64: rounding grows
    /// with the square root of the length, about 30 units of 6e-8.
    package static let product = 1e-5
    /// Scores (sums of products), exponentials and sums over positions, in f32.
    package static let attention = 2e-5

    /// What rounding to an activation or KV type adds.
    ///
    /// The reference rounds every intermediate value, a fused kernel only its result, so two
    /// roundings of half a unit may differ, and the result once more: two units in all.
    package static func rounding(_ dtype: DType) -> Double {
        switch dtype {
        case .f16: 0x1p-10
        case .bf16: 0x1p-7
        default: 0
        }
    }

    /// Terms of a product with a minimum: `code * scale` and the minimum are about 1 each and may
    /// cancel, which leaves the rounding of the terms on a small sum.
    package static let termMagnitude = 0.25

    /// Share of quantized codes that may differ by one.
    ///
    /// Numbers within the tolerance before quantization may lie on either side of a tie between two
    /// codes; codes are 1/127 of the largest number apart, so a quarter of 127 times the tolerance
    /// is the mean share. 2 % are added for short rows.
    package static func shiftedCodes(within tolerance: Double) -> Double { 0.02 + 32 * tolerance }
}
