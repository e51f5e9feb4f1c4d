// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import Testing

/// Log-probabilities and the likeliest tokens of a row.
struct RankTests {
    /// Sizes that end within a vector, within a run, and past what 32 bits of a lane add up.
    private static let sizes = [1, 7, 8, 63, 64, 65, 1000, 8 * 1024, 30_003]

    private static func row(_ count: Int, _ random: inout TestRandom, scale: Float) -> [Float] {
        (0..<count).map { _ in
            Float(Int(random.next() >> 40)) / Float(1 << 24) * scale - scale / 2
        }
    }

    @Test(arguments: sizes, [0, 1, 30, 200] as [Float])
    func weightsAddUpAsOneByOne(count: Int, scale: Float) {
        var random = TestRandom(UInt32(count))
        let row = Self.row(count, &random, scale: scale)
        let maximum = row.max() ?? 0
        var weights = [UInt64](repeating: 0, count: count)
        let expected = row.map { $0 - maximum }.withUnsafeBufferPointer { scaled in
            weights.withUnsafeMutableBufferPointer { SamplerMath.weigh(scaled, into: $0) }
        }
        let found = row.withUnsafeBufferPointer {
            SamplerMath.totalWeight($0, maximum: maximum)
        }
        #expect(found == expected)
    }

    @Test(arguments: sizes, [1, 2, 16, 255, 40_000])
    func theGreatestAreThoseOfASort(count: Int, listed: Int) {
        var random = TestRandom(UInt32(count + listed))
        var row = Self.row(count, &random, scale: 4)
        // Many equal ones, some forbidden.
        for index in row.indices {
            if index % 3 == 0 { row[index] = row[index].rounded() }
            if index % 7 == 6 { row[index] = -.infinity }
        }
        var expected: [TokenLogProbability] = []
        for (index, value) in row.enumerated() where value > -.infinity {
            expected.append(TokenLogProbability(token: Int32(index), logProbability: value))
        }
        expected.sort { a, b in
            let isTie = a.logProbability == b.logProbability
            return isTie ? a.token < b.token : a.logProbability > b.logProbability
        }
        expected = Array(expected.prefix(listed))
        #expect(Sampler(vocabularySize: count).greatest(row, count: listed) == expected)
    }
}
