// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Seeded random numbers of a load: the same seed gives the same load.
struct LoadRandom {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }

    /// An id of a vocabulary.
    mutating func token(below size: Int) -> Int32 {
        Int32(clamping: next() % UInt64(max(size, 1)))
    }

    /// In `[0, 1)`.
    mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// Time to the next arrival of a Poisson process with so many arrivals a second.
    mutating func interval(rate: Double) -> Double { -Self.log(1 - unit()) / rate }

    static func log(_ x: Double) -> Double {
        #if canImport(Darwin)
        Darwin.log(x)
        #elseif canImport(Musl)
        Musl.log(x)
        #else
        Glibc.log(x)
        #endif
    }

    static func exp(_ x: Double) -> Double {
        #if canImport(Darwin)
        Darwin.exp(x)
        #elseif canImport(Musl)
        Musl.exp(x)
        #else
        Glibc.exp(x)
        #endif
    }
}
