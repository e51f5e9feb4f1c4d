// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A bfloat16 number as stored: the upper half of an IEEE single.
public struct BFloat16: Sendable, Hashable, BitwiseCopyable {
    /// Sign, 8 exponent bits, 7 fraction bits.
    public var bitPattern: UInt16

    /// Wraps stored bits.
    @inlinable
    public init(bitPattern: UInt16) { self.bitPattern = bitPattern }

    /// Rounds to nearest, ties to even; NaN stays NaN (made quiet).
    @inlinable
    public init(_ value: Float) {
        let bits = value.bitPattern
        if value.isNaN {
            bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x40
        } else {
            bitPattern = UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
        }
    }
}

extension Float {
    /// Widens a stored bfloat16, exactly.
    @inlinable
    public init(_ value: BFloat16) { self.init(bitPattern: UInt32(value.bitPattern) << 16) }
}
