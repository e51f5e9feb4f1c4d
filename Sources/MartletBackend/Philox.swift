// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Counter-based random numbers: the same (seed, position) gives the same number on every backend.
///
/// Philox-4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
package enum Philox {
    /// Four random words for a counter and a key.
    package static func words(
        _ counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)
    ) -> (UInt32, UInt32, UInt32, UInt32) {
        var (c0, c1, c2, c3) = counter
        var (k0, k1) = key
        for round in 0..<10 {
            if round > 0 {
                k0 &+= 0x9e37_79b9
                k1 &+= 0xbb67_ae85
            }
            let a = UInt64(0xd251_1f53) &* UInt64(c0)
            let b = UInt64(0xcd9e_8d57) &* UInt64(c2)
            (c0, c1, c2, c3) = (
                UInt32(truncatingIfNeeded: b >> 32) ^ c1 ^ k0, UInt32(truncatingIfNeeded: b),
                UInt32(truncatingIfNeeded: a >> 32) ^ c3 ^ k1, UInt32(truncatingIfNeeded: a)
            )
        }
        return (c0, c1, c2, c3)
    }

    /// A number in `[0, 1)` with 24 random bits, for the draw at one output position.
    package static func uniform(seedLow: UInt32, seedHigh: UInt32, position: UInt32) -> Float {
        let word = words((position, 0, 0, 0), key: (seedLow, seedHigh)).0
        return Float(word >> 8) * 0x1p-24
    }
}
