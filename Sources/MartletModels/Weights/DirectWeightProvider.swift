// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A source that makes any rows of any weight in any format, so that nothing need be converted:
/// made-up weights.
package protocol DirectWeightProvider: WeightProvider {
    /// Some rows of a matrix.
    ///
    /// - Parameters:
    ///   - name: Name of the engine's parameter, of merged weights too.
    ///   - rows: Rows wanted.
    ///   - shape: Sizes of the whole.
    ///   - format: How the rows are stored.
    /// - Throws: `MartletError` `.unsupported` for a format that no weight has.
    func weight(_ name: String, rows: Range<Int>, shape: [Int], format: ElementFormat) throws
        -> WeightValue
}
