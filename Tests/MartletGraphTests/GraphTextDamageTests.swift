// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

/// Damaged text may be refused or still mean something; it never traps.
@Suite struct GraphTextDamageTests {
    /// Reads, verifies, prints and draws what can be read; counts what is refused.
    private func survives(_ text: String) -> Bool {
        do {
            let graph = try Graph(text: text)
            _ = graph.text
            _ = graph.svg(foldingLayers: true)
            try GraphVerifier.verify(graph)
            return true
        } catch is MartletError {
            return false
        } catch {
            Issue.record("an error of another type: \(error)")
            return false
        }
    }

    @Test(arguments: SampleGraph.all)
    func everyTruncation(_ sample: SampleGraph) throws {
        let text = try sample.build().text
        let bytes = Array(text.utf8)
        for length in 0..<bytes.count - 2 {
            #expect(!survives(String(decoding: bytes[..<length], as: UTF8.self)))
        }
    }

    @Test(arguments: SampleGraph.all)
    func flippedBits(_ sample: SampleGraph) throws {
        let bytes = Array(try sample.build().text.utf8)
        var random = SeededRandom(seed: 17)
        var refused = 0
        for _ in 0..<400 {
            var damaged = bytes
            for _ in 0...Int.random(in: 0...2, using: &random) {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                damaged[index] ^= 1 << UInt8.random(in: 0..<7, using: &random)
            }
            if !survives(String(decoding: damaged, as: UTF8.self)) { refused += 1 }
        }
        #expect(refused > 100)
    }

    /// Numbers replaced by extreme ones: sizes and attributes overflow everywhere.
    @Test(arguments: SampleGraph.all)
    func extremeNumbers(_ sample: SampleGraph) throws {
        let text = try sample.build().text
        var random = SeededRandom(seed: 5)
        let extremes = [
            "0", "-1", "9223372036854775807", "-9223372036854775808", "4611686018427387904",
            "1e308",
            "inf", "9223372036854775807*T", "T+9223372036854775807", "",
        ]
        for _ in 0..<300 {
            var damaged = ""
            var number = ""
            for character in text + " " {
                if character.isNumber {
                    number.append(character)
                    continue
                }
                if !number.isEmpty {
                    let isReplaced = Int.random(in: 0..<12, using: &random) == 0
                    damaged += isReplaced ? extremes.randomElement(using: &random) ?? "" : number
                    number = ""
                }
                damaged.append(character)
            }
            _ = survives(damaged)
        }
        #expect(survives(text) || text.contains("constant"))
    }

    /// Shapes of any rank where an op expects a matrix.
    @Test(arguments: ["f32[]", "f32[T]", "f32[T, 6]", "f32[2, 3, 4]", "cache[]", "int8g64[T, 6]"])
    func operandsOfAnyRank(_ type: String) throws {
        for definition in OpSet.builtIn.definitions {
            for attributes in [
                "", "axis=0", "axis=1", "kind=\"rms\", epsilon=1e-5", "kind=\"silu\"",
                "sizes=[3, 3]", "start=0, count=1", "shape=\"6\"", "format=\"int8g64\"",
                "rankCount=4611686018427387904", "dtype=\"f16\"",
                "headDim=2, style=\"half\", magnitude=1.0",
            ] {
                let values = (0..<6).map { "  %\($0) = parameter {name=\"p\($0)\"} : \(type)" }
                let operands = (0..<max(definition.operands.count, 2)).map { "%\($0)" }
                let text = """
                    graph g {
                    \(values.joined(separator: "\n"))
                      %6 = \(definition.name)(\(operands.joined(separator: ", "))) \
                    {\(attributes)} : \(type)
                      return y=%6
                    }
                    """
                _ = survives(text)
            }
        }
        #expect(!survives("graph g {\n  %0 = add : \(type)\n  return y=%0\n}"))
    }
}

/// SplitMix64: the same numbers everywhere.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
