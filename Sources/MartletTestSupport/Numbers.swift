// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// SplitMix64: the same numbers everywhere.
package struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    /// Starts a sequence.
    package init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Token ids below a limit.
    package mutating func tokens(_ count: Int, below limit: Int32) -> [Int32] {
        (0..<count).map { _ in Int32.random(in: 0..<limit, using: &self) }
    }
}

/// How near computed numbers must be, and why.
package enum Tolerance {
    /// Exact activations against the f64 sums of the reference: a few dozen f32 roundings of logits
    /// of size one to ten.
    package static let exactLogits = 1e-4
    /// Reference against reference with the same f64 sums, only grouped otherwise.
    package static let sameMathematics = 1e-5

    /// The largest difference; infinite where counts differ or a number is not finite.
    package static func difference(_ a: [Float], _ b: [Float]) -> Double {
        guard a.count == b.count else { return .infinity }
        return zip(a, b).reduce(0) {
            let gap = abs(Double($1.0) - Double($1.1))
            return gap.isFinite ? max($0, gap) : .infinity
        }
    }
}
