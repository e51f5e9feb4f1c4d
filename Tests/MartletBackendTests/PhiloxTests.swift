// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import Testing

struct PhiloxTests {
    /// Source: the known-answer file of Random123, `philox4x32 10`.
    @Test(
        arguments: [
            ([0, 0, 0, 0, 0, 0], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (
                [.max, .max, .max, .max, .max, .max],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
            ),
        ] as [([UInt32], [UInt32])])
    func matchesPublishedVectors(input: [UInt32], expected: [UInt32]) {
        let words = Philox.words(
            (input[0], input[1], input[2], input[3]), key: (input[4], input[5]))
        #expect([words.0, words.1, words.2, words.3] == expected)
    }

    @Test func uniformIsBelowOneAndFillsTheRange() {
        let draws = (0..<10_000).map {
            Philox.uniform(seedLow: 7, seedHigh: 9, position: UInt32($0))
        }
        #expect(draws.allSatisfy { $0 >= 0 && $0 < 1 })
        #expect(draws.reduce(0, +) / 10_000 > 0.48 && draws.reduce(0, +) / 10_000 < 0.52)
        #expect((draws.max() ?? 0) > 0.999 && (draws.min() ?? 1) < 0.001)
    }
}
