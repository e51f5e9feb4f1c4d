// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Counts of durations in buckets that are at most 1/1024 of their value wide.
///
/// As HdrHistogram (Tene): a power of two has 1,024 equal buckets, so that percentiles are right to
/// 0.1 % from a microsecond to days, in fixed memory.
public struct LatencyHistogram: Sendable, Hashable {
    private static let steps = 1024
    private static let powers = 40
    private var counts: [UInt32] = []
    /// Durations counted.
    public private(set) var count = 0
    private var sum = 0.0
    private var squares = 0.0
    /// The longest duration, in seconds.
    public private(set) var longest = 0.0

    /// An empty histogram.
    public init() {}

    /// Counts a duration in seconds; what is below 0 or no number counts as 0.
    public mutating func add(_ seconds: Double) {
        let seconds = seconds > 0 && seconds.isFinite ? seconds : 0
        let index = Self.bucket(seconds * 1e6)
        if counts.isEmpty {
            counts = [UInt32](repeating: 0, count: Self.steps * (Self.powers + 1))
        }
        counts[index] &+= 1
        count += 1
        sum += seconds
        squares += seconds * seconds
        longest = max(longest, seconds)
    }

    /// Mean, in seconds; 0 of none.
    public var mean: Double { count > 0 ? sum / Double(count) : 0 }

    /// Standard deviation, in seconds.
    public var deviation: Double {
        count > 0 ? max(squares / Double(count) - mean * mean, 0).squareRoot() : 0
    }

    /// The duration that so many per cent do not exceed, in seconds.
    public func percentile(_ percent: Double) -> Double {
        guard count > 0 else { return 0 }
        let wanted = max(1, (min(max(percent, 0), 100) / 100 * Double(count)).rounded(.up))
        var seen = 0.0
        for (index, value) in counts.enumerated() where value > 0 {
            seen += Double(value)
            if seen >= wanted { return min(Self.upperEnd(index) * 1e-6, longest) }
        }
        return longest
    }

    /// Below 1,024 microseconds a bucket is one wide; each further power of two has as many.
    private static func bucket(_ microseconds: Double) -> Int {
        let value = UInt64(min(microseconds, 0x1p48))
        guard value >= UInt64(2 * steps) else { return Int(value) }
        let shift = 63 - value.leadingZeroBitCount - 10
        return min(shift * steps + Int(value >> UInt64(shift)), steps * (powers + 1) - 1)
    }

    private static func upperEnd(_ index: Int) -> Double {
        guard index >= 2 * steps else { return Double(index + 1) }
        let shift = index / steps - 1
        return Double((index - shift * steps + 1) << shift)
    }
}
