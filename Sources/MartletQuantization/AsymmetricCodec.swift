// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Codes from the group's minimum to its maximum: with an integer zero, or with the minimum itself.
struct AsymmetricCodec: WeightCodec {
    func handles(_ scheme: QuantizationScheme) -> Bool {
        scheme.zero != .none && scheme.group != .tensor && (scheme.bits == 4 || scheme.bits == 8)
    }

    func encode(
        row: UnsafeBufferPointer<Float>, scheme: QuantizationScheme,
        codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<Float>,
        zeros: UnsafeMutablePointer<Float>
    ) {
        let size = max(scheme.groupSize(inputs: row.count), 1)
        let top: Float = scheme.bits == 4 ? 15 : 255
        for (group, start) in stride(from: 0, to: row.count, by: size).enumerated() {
            let values = UnsafeBufferPointer(rebasing: row[start..<min(start + size, row.count)])
            var low = values.min() ?? 0
            var high = values.max() ?? 0
            if scheme.zero == .integer {
                // Zero itself must be a code.
                low = min(low, 0)
                high = max(high, 0)
            }
            let scale = RowCoder.rounded((high - low) / top, scheme.scaleType)
            let inverse = RowCoder.inverse(scale)
            let zero: Float
            if scheme.zero == .integer {
                zero = max(0, min(top, (-low * inverse).rounded(.toNearestOrEven)))
            } else {
                zero = RowCoder.rounded(low, scheme.scaleType)
            }
            scales[group] = scale
            zeros[group] = zero
            for (index, value) in values.enumerated() {
                let scaled =
                    scheme.zero == .integer ? value * inverse + zero : (value - zero) * inverse
                codes[start + index] = UInt8(max(0, min(top, scaled.rounded(.toNearestOrEven))))
            }
        }
    }
}
