// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import Testing

/// Frequencies of drawn tokens against their probabilities, filters and penalties composed, on fixed
/// seeds: chi-square below its 0.9999 quantile.
struct SamplerDistributionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var penalises = false
        var set: @Sendable (inout SamplingParameters) -> Void
        var testDescription: String { name }
    }

    static let cases: [Case] =
        SamplerTests.filters.map { Case(name: $0.name, set: $0.set) } + [
            Case(name: "top-p of a few, hot") {
                $0.temperature = 1.7
                $0.topP = 0.7
            },
            Case(name: "typical, cold") {
                $0.temperature = 0.6
                $0.typicalP = 0.8
            },
            Case(name: "penalties", penalises: true) {
                $0.repetitionPenalty = 1.3
                $0.presencePenalty = 0.4
                $0.frequencyPenalty = 0.2
            },
            Case(name: "penalties and all filters", penalises: true) {
                $0.temperature = 1.2
                $0.topK = 25
                $0.topP = 0.95
                $0.minP = 0.01
                $0.typicalP = 0.95
                $0.repetitionPenalty = 1.2
                $0.frequencyPenalty = 0.3
            },
        ]

    @Test(arguments: cases, [1, 42, 1234] as [UInt32])
    func frequenciesFollowTheProbabilities(c: Case, seed: UInt32) {
        var random = TestRandom(seed)
        let row = (0..<40).map { _ in random.logit(0.8) }
        let prompt = (0..<6).map { _ in Int32.random(in: 0..<40, using: &random) }
        let generated = (0..<8).map { _ in Int32.random(in: 0..<40, using: &random) }
        var p = SamplingParameters()
        p.temperature = 1
        c.set(&p)
        p.seedLow = seed
        p.seedHigh = 7
        var naive = NaiveSampler(row)
        var state = SamplerState(vocabularySize: 40)
        if c.penalises {
            naive.penalise(p, prompt: prompt, generated: generated)
            for token in prompt { state.addPrompt(token) }
            for token in generated { state.addGenerated(token) }
        }
        let tokens = naive.candidates(p)
        let probabilities = naive.probabilities(tokens, temperature: Double(p.temperature))
        var sampler = Sampler(vocabularySize: 40)
        var top: [TokenLogProbability] = []
        var counts = [Double](repeating: 0, count: 40)
        let draws = 20_000
        for position in 0..<draws {
            p.outputPosition = UInt32(position)
            let token = sampler.sample(
                row, parameters: p, state: c.penalises ? state : nil, top: &top
            ).token
            counts[Int(token)] += 1
        }
        #expect(tokens.reduce(0) { $0 + counts[$1] } == Double(draws))
        // Rare tokens are counted together.
        var chiSquare = 0.0
        var bins = 0
        var rare = (count: 0.0, expected: 0.0)
        for (token, probability) in zip(tokens, probabilities) {
            let expected = probability * Double(draws)
            if expected < 5 {
                rare.count += counts[token]
                rare.expected += expected
                continue
            }
            bins += 1
            chiSquare += (counts[token] - expected) * (counts[token] - expected) / expected
        }
        if rare.expected >= 5 {
            bins += 1
            let difference = rare.count - rare.expected
            chiSquare += difference * difference / rare.expected
        }
        let limit = bins > 1 ? Self.quantile(Double(bins - 1)) : 1e-9
        #expect(chiSquare < limit, "\(bins) bins")
    }

    /// The 0.9999 quantile for so many degrees of freedom, after Wilson and Hilferty.
    static func quantile(_ degrees: Double) -> Double {
        let part = 2 / (9 * degrees)
        let root = 1 - part + 3.719 * part.squareRoot()
        return degrees * root * root * root
    }

    /// A sampler that is a little wrong is found out.
    @Test func theTestSeesASmallError() {
        let row: [Float] = [0, 0.5, 1, 1.5]
        var sampler = Sampler(vocabularySize: 4)
        var top: [TokenLogProbability] = []
        var p = SamplingParameters()
        p.temperature = 1.1
        var counts = [Double](repeating: 0, count: 4)
        for position in 0..<20_000 {
            p.outputPosition = UInt32(position)
            counts[Int(sampler.sample(row, parameters: p, top: &top).token)] += 1
        }
        let expected = NaiveSampler(row).probabilities([0, 1, 2, 3], temperature: 1)
        let chiSquare = zip(counts, expected).reduce(0.0) { sum, pair in
            let expected = pair.1 * 20_000
            return sum + (pair.0 - expected) * (pair.0 - expected) / expected
        }
        #expect(chiSquare > Self.quantile(3))
    }
}
