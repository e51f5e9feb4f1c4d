// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Conversions between IEEE half precision bits and single precision.
///
/// Works on stored `UInt16` bits so that code does not depend on `Float16`, which some hosts lack.
/// Bulk conversion is a micro-kernel; these are for scales and single values.
public enum Half {
    /// Widens half precision bits, exactly.
    @inlinable
    public static func float(bits: UInt16) -> Float {
        let sign = UInt32(bits & 0x8000) << 16
        let exponent = UInt32(bits >> 10) & 0x1f
        let fraction = UInt32(bits) & 0x3ff
        if exponent == 0x1f { return Float(bitPattern: sign | 0x7f80_0000 | (fraction << 13)) }
        if exponent != 0 {
            return Float(bitPattern: sign | ((exponent + 112) << 23) | (fraction << 13))
        }
        // Subnormal: fraction * 2^-24 is exact in single precision.
        let magnitude = Float(fraction) * 0x1p-24
        return Float(bitPattern: magnitude.bitPattern | sign)
    }

    /// Rounds to half precision, nearest even; overflow gives infinity, NaN stays NaN.
    @inlinable
    public static func bits(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        let sign = UInt16(truncatingIfNeeded: (bits >> 16) & 0x8000)
        let magnitude = bits & 0x7fff_ffff
        if magnitude >= 0x7f80_0000 {
            return sign | 0x7c00 | (magnitude > 0x7f80_0000 ? 0x200 : 0)
        }
        if magnitude >= 0x477f_f000 { return sign | 0x7c00 }
        if magnitude < 0x3880_0000 {
            // Below the smallest normal half: let the adder of single precision do the rounding.
            let rounded = Float(bitPattern: magnitude) + 0.5
            return sign | UInt16(truncatingIfNeeded: rounded.bitPattern &- 0x3f00_0000)
        }
        let rounded = magnitude &+ 0xfff &+ ((magnitude >> 13) & 1)
        return sign | UInt16(truncatingIfNeeded: (rounded >> 13) &- (112 << 10))
    }
}
