// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The exponential and logarithm of sampling in plain IEEE operations: the same bits everywhere.
///
/// Probabilities are integers in units of 2^-40 of the most likely token's, so that sums do not
/// depend on their order and any backend, parallel or not, draws the same token.
package enum SamplerMath {
    /// Weight of the most likely token.
    static let one: UInt64 = 1 << 40

    /// `exp(x)` for `x <= 0`, below -60 that of -60; relative error below 2e-7.
    @inline(__always)
    static func exponential(_ x: SIMD8<Float>) -> SIMD8<Float> {
        let clamped = x.replacing(with: -60, where: x .< -60)
        let magic = SIMD8<Float>(repeating: 0x1.8p23)
        let shifted = clamped * 1.44269504 + magic
        let whole = shifted - magic
        let r = (clamped - whole * 0.693359375) - whole * -2.12194440e-4
        var p = r * (1.0 / 5040) + (1.0 / 720)
        p = p * r + (1.0 / 120)
        p = p * r + (1.0 / 24)
        p = p * r + (1.0 / 6)
        p = p * r + 0.5
        p = p * r + 1
        p = p * r + 1
        let n = unsafeBitCast(shifted, to: SIMD8<Int32>.self) &- Int32(0x4b40_0000)
        return p * unsafeBitCast((n &+ 127) &<< 23, to: SIMD8<Float>.self)
    }

    /// Integer weights `exp(scaled)` in units of 2^-40; returns their sum.
    ///
    /// - Parameters:
    ///   - scaled: Logits less the greatest, over temperature: at most 0.
    ///   - weights: As many elements.
    package static func weigh(
        _ scaled: UnsafeBufferPointer<Float>, into weights: UnsafeMutableBufferPointer<UInt64>
    ) -> UInt64 {
        var total: UInt64 = 0
        var index = 0
        while index < scaled.count {
            var x = SIMD8<Float>(repeating: -.infinity)
            let lanes = min(8, scaled.count - index)
            if lanes == 8, let base = scaled.baseAddress {
                x = UnsafeRawPointer(base + index).loadUnaligned(as: SIMD8<Float>.self)
            } else {
                for lane in 0..<lanes { x[lane] = scaled[index + lane] }
            }
            let y = exponential(x) * 0x1p40
            for lane in 0..<lanes {
                let weight = UInt64(bitPattern: Int64(y[lane]))
                weights[index + lane] = weight
                total &+= weight
            }
            index += lanes
        }
        return total
    }

    /// The sum of the integer weights of finite logits, as `weigh` gives them, without the weights.
    ///
    /// A weight, up to 2^40, is cut into a whole multiple of 2^20 and a rest, each of which a float
    /// holds exactly and 32 bits add up: no lane is converted on its own.
    package static func totalWeight(_ row: UnsafeBufferPointer<Float>, maximum: Float) -> UInt64 {
        guard let base = row.baseAddress else { return 0 }
        let magic = SIMD8<Float>(repeating: 0x1.8p23)
        let magicBits = Int32(0x4b40_0000)
        var total: Int64 = 0
        var index = 0
        while index < row.count {
            var multiples = SIMD8<Int32>(repeating: 0), rests = SIMD8<Int32>(repeating: 0)
            // So many parts of up to 2^20 each fit 32 bits.
            let end = min(index + 8 * 1024, row.count)
            while index < end {
                var x = SIMD8<Float>(repeating: -.infinity)
                if index + 8 <= end {
                    x = UnsafeRawPointer(base + index).loadUnaligned(as: SIMD8<Float>.self)
                } else {
                    for lane in 0..<end - index { x[lane] = base[index + lane] }
                }
                let weight = exponential(x - maximum) * 0x1p40
                // Adding the magic number rounds to the nearest whole number, into the low bits.
                let multiple = weight * 0x1p-20 + magic
                let rest = weight - (multiple - magic) * 0x1p20
                let nearest = rest + magic
                // -1 where that was upwards: weights are cut off.
                let above = unsafeBitCast(nearest - magic .> rest, to: SIMD8<Int32>.self)
                multiples &+= unsafeBitCast(multiple, to: SIMD8<Int32>.self) &- magicBits
                rests &+= unsafeBitCast(nearest, to: SIMD8<Int32>.self) &- magicBits &+ above
                index += 8
            }
            for lane in 0..<8 {
                total += Int64(multiples[lane]) << 20 + Int64(rests[lane])
            }
        }
        return UInt64(total)
    }

    /// Natural logarithm of a positive finite number.
    static func logarithm(_ x: Double) -> Double {
        var m = x.significand
        var e = Double(x.exponent)
        if m > 1.4142135623730951 {
            m /= 2
            e += 1
        }
        let z = (m - 1) / (m + 1)
        let square = z * z
        var sum = 0.0
        var k = 23.0
        while k >= 1 {
            sum = sum * square + 1 / k
            k -= 2
        }
        return e * 0.6931471805599453 + 2 * z * sum
    }

    /// A number whose unsigned order is that of the float; both zeros are equal.
    @inline(__always)
    static func orderedKey(_ value: Float) -> UInt32 {
        let bits = (value + 0).bitPattern
        return bits >> 31 == 0 ? bits | (1 << 31) : ~bits
    }

    /// The greatest element, and whether all elements are finite.
    static func scan(_ row: UnsafeBufferPointer<Float>) -> (maximum: Float, isFinite: Bool) {
        guard let base = row.baseAddress else { return (-.infinity, true) }
        var greatest = SIMD16<Float>(repeating: -.infinity)
        var zeros = SIMD16<Float>(repeating: 0)
        var index = 0
        while index + 16 <= row.count {
            let x = UnsafeRawPointer(base + index).loadUnaligned(as: SIMD16<Float>.self)
            greatest.replace(with: x, where: x .> greatest)
            zeros += x * 0
            index += 16
        }
        var maximum = greatest.max()
        var zero = zeros.sum()
        while index < row.count {
            maximum = max(maximum, row[index])
            zero += row[index] * 0
            index += 1
        }
        return (maximum, zero == 0)
    }

    /// Index of the first element equal to a value.
    static func firstIndex(of value: Float, in row: UnsafeBufferPointer<Float>) -> Int? {
        guard let base = row.baseAddress else { return nil }
        var index = 0
        while index + 16 <= row.count {
            let x = UnsafeRawPointer(base + index).loadUnaligned(as: SIMD16<Float>.self)
            if any(x .== value) { break }
            index += 16
        }
        while index < row.count {
            if row[index] == value { return index }
            index += 1
        }
        return nil
    }
}
