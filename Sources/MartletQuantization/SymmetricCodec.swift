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

    /// What rounds where it is added: no fraction bits are left.
    ///
    /// The sum is the nearest integer, ties to even, in its low bits. A library call per weight would
    /// take most of a build's time.
    private static let rounder: Float = 0x1.8p23

    /// The code of a scaled value.
    private static func code(_ scaled: Float, _ middle: Float) -> UInt8 {
        let inside = max(-middle, min(middle - 1, scaled))
        return UInt8(
            truncatingIfNeeded: (inside + rounder).bitPattern &+ UInt32(middle))
    }

    /// Scales that are tried, side by side so that the loop over them becomes vector instructions.
    private static let laneCount = 12

    private func bestScale(_ values: UnsafeBufferPointer<Float>, _ type: DType) -> Float {
        var extreme: Float = 0
        for value in values where abs(value) > abs(extreme) { extreme = value }
        if extreme == 0 { return 0 }
        // -8 gives the extreme its own code; larger divisors trade it for finer steps.
        let steps = 0...8
        return withUnsafeTemporaryAllocation(of: Float.self, capacity: 3 * Self.laneCount) {
            lanes in
            lanes.initialize(repeating: 0)
            guard let scales = lanes.baseAddress else { return 0 }
            let inverses = scales + Self.laneCount
            let errors = inverses + Self.laneCount
            for step in steps {
                scales[step] = RowCoder.rounded(extreme / (-8 - 0.25 * Float(step - 4)), type)
                if scales[step] != 0 { inverses[step] = RowCoder.inverse(scales[step]) }
            }
            for value in values {
                for lane in 0..<Self.laneCount {
                    let scaled = value * inverses[lane]
                    let low = scaled > 7 ? 7 : scaled
                    let inside = low < -8 ? -8 : low
                    let difference = ((inside + Self.rounder) - Self.rounder) * scales[lane] - value
                    errors[lane] += difference * difference
                }
            }
            // Kept where no error is finite, so that a scale out of range is reported, not coded as 0.
            var best = RowCoder.rounded(extreme / -8, type)
            var bestError = Float.infinity
            for step in steps where scales[step] != 0 && errors[step] < bestError {
                bestError = errors[step]
                best = scales[step]
            }
            return best
        }
    }
}
