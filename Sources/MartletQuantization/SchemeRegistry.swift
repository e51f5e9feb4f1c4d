// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A way to code weights: `encode` and `decode` in plain Swift, the reference for all kernels.
package protocol WeightCodec: Sendable {
    /// Whether it handles a scheme.
    func handles(_ scheme: QuantizationScheme) -> Bool
    /// Codes one row.
    ///
    /// - Parameters:
    ///   - row: K finite numbers.
    ///   - scheme: One that `handles` accepts.
    ///   - codes: Filled with K codes.
    ///   - scales: Filled with one scale a group, already rounded to the scheme's type.
    ///   - zeros: Filled with one zero a group: a code, or a minimum rounded to the scheme's type.
    func encode(
        row: UnsafeBufferPointer<Float>, scheme: QuantizationScheme,
        codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<Float>,
        zeros: UnsafeMutablePointer<Float>)
}

/// The schemes that exist: one line each.
package enum SchemeRegistry {
    static let codecs: [any WeightCodec] = [
        SymmetricCodec(),
        AsymmetricCodec(),
    ]

    /// Codes a plain matrix, rows in parallel.
    ///
    /// - Parameters:
    ///   - tensor: `[N, K]`, any floating-point type.
    ///   - scheme: Group sizes need not divide K here; kernels may ask for it.
    ///   - firstRow: Number of the first row, for messages about a part of a weight.
    /// - Throws: `MartletError` `.unsupported` for a scheme no codec handles, `.corrupt` naming row
    ///   and column of a weight that is not finite.
    package static func encode(
        _ tensor: TensorData, _ scheme: QuantizationScheme, firstRow: Int = 0
    ) throws -> QuantizedTensor {
        guard let codec = codecs.first(where: { $0.handles(scheme) }) else {
            throw MartletError(.unsupported, "no codec for weights as \(scheme)")
        }
        guard tensor.shape.count == 2 else {
            throw MartletError(
                .unsupported, "only matrices are quantized, not shape \(tensor.shape)")
        }
        return try RowCoder(
            scheme: scheme, shape: tensor.shape, codec: codec, firstRow: firstRow
        ).encode(tensor)
    }

    /// The numbers that codes stand for, as f32.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` only if the tensor's parts were inconsistent.
    package static func decode(_ tensor: QuantizedTensor) throws -> TensorData {
        try RowDecoder(tensor).decode()
    }
}
