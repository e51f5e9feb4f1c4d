// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import Testing

struct SamplerTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var set: @Sendable (inout SamplingParameters) -> Void
        var testDescription: String { name }
    }

    static let filters: [Case] = [
        Case(name: "none") { _ in },
        Case(name: "temperature 0.3") { $0.temperature = 0.3 },
        Case(name: "temperature 2.5") { $0.temperature = 2.5 },
        Case(name: "top-k 2") { $0.topK = 2 },
        Case(name: "top-k 40") { $0.topK = 40 },
        Case(name: "top-k above V") { $0.topK = 5000 },
        Case(name: "top-p 0.5") { $0.topP = 0.5 },
        Case(name: "top-p 0.95") { $0.topP = 0.95 },
        Case(name: "min-p 0.05") { $0.minP = 0.05 },
        Case(name: "min-p 1") { $0.minP = 1 },
        Case(name: "typical 0.4") { $0.typicalP = 0.4 },
        Case(name: "all") {
            $0.temperature = 0.8
            $0.topK = 30
            $0.topP = 0.9
            $0.minP = 0.02
            $0.typicalP = 0.9
        },
    ]

    private func parameters(_ set: (inout SamplingParameters) -> Void) -> SamplingParameters {
        var p = SamplingParameters()
        p.temperature = 1
        set(&p)
        return p
    }

    @Test(arguments: filters) func drawsTheTokenOfThePlainImplementation(filter: Case) {
        var random = TestRandom(1)
        var top: [TokenLogProbability] = []
        for size in [1, 2, 15, 16, 17, 33, 500] {
            var sampler = Sampler(vocabularySize: size)
            for round in 0..<60 {
                var p = parameters(filter.set)
                p.seedLow = UInt32(size)
                p.outputPosition = UInt32(round)
                let row = (0..<size).map { _ in random.logit() }
                let result = sampler.sample(row, parameters: p, top: &top)
                #expect(result.status == .ok)
                #expect(Int(result.token) == NaiveSampler(row).draw(p), "V \(size) round \(round)")
            }
        }
    }

    @Test func drawsEveryCandidateAndNoOther() {
        var random = TestRandom(2)
        var top: [TokenLogProbability] = []
        let row = (0..<40).map { _ in random.logit(1) }
        var sampler = Sampler(vocabularySize: row.count)
        for filter in Self.filters {
            var p = parameters(filter.set)
            let allowed = Set(NaiveSampler(row).candidates(p).map(Int32.init))
            var drawn: Set<Int32> = []
            for position in 0..<4000 {
                p.outputPosition = UInt32(position)
                drawn.insert(sampler.sample(row, parameters: p, top: &top).token)
            }
            #expect(drawn.isSubset(of: allowed), "\(filter.name)")
            #expect(drawn.count * 10 >= allowed.count * 6, "\(filter.name)")
        }
    }

    @Test func frequenciesFollowTheProbabilities() {
        let row: [Float] = [0, 1, 2, -1, 0.5, 1.5]
        let weights = row.map { NaiveSampler.exp(Double($0)) }
        let sum = weights.reduce(0, +)
        var sampler = Sampler(vocabularySize: row.count)
        var top: [TokenLogProbability] = []
        for seed in [1, 42, 1234] as [UInt32] {
            var counts = [Double](repeating: 0, count: row.count)
            var p = parameters { $0.seedLow = seed }
            let draws = 20_000
            for position in 0..<draws {
                p.outputPosition = UInt32(position)
                counts[Int(sampler.sample(row, parameters: p, top: &top).token)] += 1
            }
            let chiSquare = zip(counts, weights).map { count, weight in
                let expected = weight / sum * Double(draws)
                return (count - expected) * (count - expected) / expected
            }.reduce(0, +)
            #expect(chiSquare < 20.5)  // 0.999 quantile for 5 degrees of freedom
        }
    }

    @Test func penaltiesAgreeWithThePlainImplementation() {
        var random = TestRandom(3)
        var top: [TokenLogProbability] = []
        var sampler = Sampler(vocabularySize: 50)
        var state = SamplerState(vocabularySize: 50)
        for round in 0..<200 {
            var p = parameters {
                $0.repetitionPenalty = 1.3
                $0.presencePenalty = 0.7
                $0.frequencyPenalty = 0.4
            }
            p.outputPosition = UInt32(round)
            if round % 2 == 0 { p.temperature = 0 }
            let row = (0..<50).map { _ in random.logit() }
            let prompt = (0..<10).map { _ in Int32.random(in: 0..<50, using: &random) }
            let generated = (0..<20).map { _ in Int32.random(in: 0..<50, using: &random) }
            state.reset()
            prompt.forEach { state.addPrompt($0) }
            generated.forEach { state.addGenerated($0) }
            var naive = NaiveSampler(row)
            naive.penalise(p, prompt: prompt, generated: generated)
            let expected =
                p.temperature > 0
                ? naive.draw(p)
                : naive.logits.firstIndex(of: naive.logits.max() ?? 0)
            let result = sampler.sample(row, parameters: p, state: state, top: &top)
            #expect(Int(result.token) == expected, "round \(round)")
        }
    }

    @Test func tiesGoToTheLowestId() {
        var top: [TokenLogProbability] = []
        var sampler = Sampler(vocabularySize: 40)
        var row = [Float](repeating: -1, count: 40)
        row[7] = 2
        row[33] = 2
        row[39] = 2
        var p = SamplingParameters()
        p.logProbabilityCount = 2
        #expect(sampler.sample(row, parameters: p, top: &top).token == 7)
        #expect(top.map(\.token) == [7, 33])
        p.temperature = 1
        p.topK = 2
        let drawn = Set(
            (0..<200).map { position in
                p.outputPosition = UInt32(position)
                return sampler.sample(row, parameters: p, top: &top).token
            })
        #expect(drawn == [7, 33])
        row = [-0.0, 0] + row.dropFirst(2).map { _ in -5 }
        p.topK = 1
        #expect(sampler.sample(row, parameters: p, top: &top).token == 0)
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity], [0, 20, 36])
    func reportsRowsThatAreNotFinite(bad: Float, place: Int) {
        var top: [TokenLogProbability] = []
        var sampler = Sampler(vocabularySize: 37)
        var row = [Float](repeating: 1, count: 37)
        #expect(sampler.sample(row, parameters: SamplingParameters(), top: &top).status == .ok)
        row[place] = bad
        let result = sampler.sample(row, parameters: SamplingParameters(), top: &top)
        #expect(result.status == .nonFinite)
        #expect(result.token == -1)
    }

    @Test func biasAndMaskForbidTokens() {
        var top: [TokenLogProbability] = []
        var sampler = Sampler(vocabularySize: 3)
        let row: [Float] = [3, 2, 1]
        let p = SamplingParameters()
        let none = LogitBias(token: 0, bias: -.infinity)
        let more = LogitBias(token: 2, bias: 1.5)
        #expect(sampler.sample(row, parameters: p, bias: [none], top: &top).token == 1)
        #expect(sampler.sample(row, parameters: p, bias: [none, more], top: &top).token == 2)
        let huge = LogitBias(token: 2, bias: .greatestFiniteMagnitude)
        #expect(sampler.sample(row, parameters: p, bias: [huge, huge], top: &top).token == 2)
        let outside = [LogitBias(token: -1, bias: 9), LogitBias(token: 3, bias: 9)]
        #expect(sampler.sample(row, parameters: p, bias: outside, top: &top).token == 0)
        let all = (0..<3).map { LogitBias(token: $0, bias: -.infinity) }
        #expect(sampler.sample(row, parameters: p, bias: all, top: &top).status == .noCandidate)
        let mask: [UInt32] = [0b100]
        let masked = row.withUnsafeBufferPointer { row in
            mask.withUnsafeBufferPointer {
                sampler.sample(row, parameters: p, mask: $0.baseAddress, top: &top)
            }
        }
        #expect(masked.token == 2)
    }

    @Test func logProbabilitiesIgnoreSettingsAndSumToOne() {
        var random = TestRandom(5)
        var top: [TokenLogProbability] = []
        var sampler = Sampler(vocabularySize: 200)
        let row = (0..<200).map { _ in random.logit() }
        var p = SamplingParameters()
        p.logProbabilityCount = 200
        let greedy = sampler.sample(row, parameters: p, top: &top)
        #expect(top.first?.token == greedy.token)
        #expect(top.first?.logProbability == greedy.logProbability)
        let sum = top.map { NaiveSampler.exp(Double($0.logProbability)) }.reduce(0, +)
        #expect(abs(sum - 1) < 1e-5)
        #expect(zip(top, top.dropFirst()).allSatisfy { $0.logProbability >= $1.logProbability })
        let expected = top
        p.temperature = 3
        p.topK = 5
        let drawn = sampler.sample(
            row, parameters: p, bias: [LogitBias(token: greedy.token, bias: -.infinity)], top: &top)
        #expect(top == expected)
        #expect(
            top.contains { $0.token == drawn.token && $0.logProbability == drawn.logProbability })
        p.logProbabilityCount = -1
        #expect(sampler.sample(row, parameters: p, top: &top).logProbability == 0)
        #expect(top.isEmpty)
    }

    @Test func theSameSeedAndPositionDrawTheSameToken() {
        var random = TestRandom(6)
        var top: [TokenLogProbability] = []
        let row = (0..<300).map { _ in random.logit(1) }
        var fresh = Sampler(vocabularySize: 300)
        var used = Sampler(vocabularySize: 300)
        var distinct: Set<Int32> = []
        for position in 0..<100 {
            var p = parameters { $0.topP = 0.95 }
            p.seedHigh = 3
            p.outputPosition = UInt32(position)
            let first = fresh.sample(row, parameters: p, top: &top)
            _ = used.sample(row.reversed(), parameters: parameters { $0.topK = 3 }, top: &top)
            #expect(used.sample(row, parameters: p, top: &top) == first)
            distinct.insert(first.token)
        }
        #expect(distinct.count > 20)
    }
}
