// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Symmetric codes: zero is the middle code.
///
/// 8 bits: scale = amax / 127, nearest code. 4 bits: the value of largest magnitude becomes code 0
/// or 15 (as Q4_0), then the scale with the least squared error out of a few neighbours is kept.
struct SymmetricCodec: WeightCodec {
    func handles(_ scheme: QuantizationScheme) -> Bool {
        scheme.zero == .none && scheme.group != .tensor && (scheme.bits == 4 || scheme.bits == 8)
    }

    func encode(
        row: UnsafeBufferPointer<Float>, scheme: QuantizationScheme,
        codes: UnsafeMutablePointer<UInt8>, scales: UnsafeMutablePointer<Float>,
        zeros: UnsafeMutablePointer<Float>
    ) {
        let size = max(scheme.groupSize(inputs: row.count), 1)
        let middle: Float = scheme.bits == 4 ? 8 : 128
        for (group, start) in stride(from: 0, to: row.count, by: size).enumerated() {
            let values = UnsafeBufferPointer(rebasing: row[start..<min(start + size, row.count)])
            let scale =
                scheme.bits == 8
                ? RowCoder.rounded(values.reduce(0) { max($0, abs($1)) } / 127, scheme.scaleType)
                : bestScale(values, scheme.scaleType)
            scales[group] = scale
            let inverse = RowCoder.inverse(scale)
            for (index, value) in values.enumerated() {
                codes[start + index] = Self.code(value * inverse, middle)
            }
        }
    }

    private static func code(_ scaled: Float, _ middle: Float) -> UInt8 {
        UInt8(max(0, min(2 * middle - 1, scaled.rounded(.toNearestOrEven) + middle)))
    }

    private func bestScale(_ values: UnsafeBufferPointer<Float>, _ type: DType) -> Float {
        var extreme: Float = 0
        for value in values where abs(value) > abs(extreme) { extreme = value }
        if extreme == 0 { return 0 }
        // Kept where no error is finite, so that a scale out of range is reported, not coded as 0.
        var best = RowCoder.rounded(extreme / -8, type)
        var bestError = Float.infinity
        // -8 gives the extreme its own code; larger divisors trade it for finer steps.
        for step in 0...8 {
            let scale = RowCoder.rounded(extreme / (-8 - 0.25 * Float(step - 4)), type)
            if scale == 0 { continue }
            let inverse = RowCoder.inverse(scale)
            var error: Float = 0
            for value in values {
                let code = max(-8, min(7, (value * inverse).rounded(.toNearestOrEven)))
                let difference = code * scale - value
                error += difference * difference
            }
            if error < bestError {
                bestError = error
                best = scale
            }
        }
        return best
    }
}
