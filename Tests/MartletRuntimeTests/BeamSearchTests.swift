// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

/// Searches with beams through the whole engine, against one that keeps whole sequences and
/// looks at all continuations.
struct BeamSearchTests {
    /// The rules of transformers, written over whole sequences and all of their continuations.
    struct PlainSearch {
        var model: FakeModel
        var settings: SamplingSettings

        func run(_ prompt: [Int32]) -> [(tokens: [Int32], score: Double)] {
            let width = settings.beamCount
            let power = Double(settings.beams.lengthPenalty)
            var running: [(tokens: [Int32], score: Double)] = [([], 0)]
            var finished: [(tokens: [Int32], score: Double)] = []
            var canImprove = true
            for length in 1...settings.maxTokens {
                var all: [(tokens: [Int32], score: Double, rank: Double)] = []
                for beam in running {
                    let row = scores(prompt, beam.tokens)
                    let order = row.indices.sorted { row[$0] > row[$1] }
                    for (place, token) in order.enumerated() where row[token] > -.infinity {
                        let score = beam.score + row[token]
                        all.append(
                            (
                                beam.tokens + [Int32(token)], score,
                                score - Double(settings.beams.diversity) * Double(place)
                            ))
                    }
                }
                all.sort { $0.rank > $1.rank }
                let kept = all.prefix(max(2, 1 + settings.stopTokens.count) * width)
                func ends(_ tokens: [Int32]) -> Bool {
                    length == settings.maxTokens
                        || tokens.last.map(settings.stopTokens.contains) ?? false
                }
                let isFull = settings.beams.stopping == .early && finished.count >= width
                if canImprove, !isFull {
                    for candidate in kept.prefix(width) where ends(candidate.tokens) {
                        finished.append(
                            (candidate.tokens, candidate.score / Self.pow(length, power)))
                    }
                }
                finished.sort { $0.score > $1.score }
                finished = Array(finished.prefix(width))
                running = kept.filter { !ends($0.tokens) }.prefix(width).map {
                    ($0.tokens, $0.score)
                }
                if running.isEmpty { break }
                let longest = settings.beams.stopping == .never && power > 0
                let best = running[0].score / Self.pow(longest ? settings.maxTokens : length, power)
                if finished.count >= width, best <= finished[width - 1].score { canImprove = false }
                if !canImprove { break }
                if settings.beams.stopping == .early, finished.count >= width { break }
            }
            return finished
        }

        /// Log-probabilities after a beam, changed as its settings say.
        private func scores(_ prompt: [Int32], _ answer: [Int32]) -> [Double] {
            var row = AnswerTests.logSoftmax(model.logits(after: prompt + answer))
            for (token, bias) in settings.logitBias { row[Int(token)] += Double(bias) }
            for token in FakeModel.banned(settings, prompt + answer) {
                row[Int(token)] = -.infinity
            }
            if answer.count < settings.minTokens {
                for token in settings.stopTokens { row[Int(token)] = -.infinity }
            }
            for token in Set(prompt + answer) {
                let penalty = Double(settings.repetitionPenalty)
                let value = row[Int(token)]
                row[Int(token)] = value > 0 ? value / penalty : value * penalty
            }
            return row
        }

        private static func pow(_ length: Int, _ power: Double) -> Double {
            // Powers that tests use: whole and half ones.
            var result = 1.0
            for _ in 0..<Int(abs(power)) { result *= Double(length) }
            if abs(power) - Double(Int(abs(power))) > 0.25 { result *= Double(length).squareRoot() }
            return power < 0 ? 1 / result : result
        }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var set: @Sendable (inout SamplingSettings) -> Void
        var testDescription: String { name }
    }

    static let cases: [Case] = [
        Case(name: "2 beams") { $0.beamCount = 2 },
        Case(name: "4 beams, stops") {
            $0.beamCount = 4
            $0.stopTokens = [3, 17]
        },
        Case(name: "4 beams, early") {
            $0.beamCount = 4
            $0.stopTokens = [3, 17, 20, 21, 22]
            $0.beams.stopping = .early
        },
        Case(name: "3 beams, never, longer") {
            $0.beamCount = 3
            $0.stopTokens = [3, 17, 20]
            $0.beams.stopping = .never
            $0.beams.lengthPenalty = 2
        },
        Case(name: "3 beams, shorter") {
            $0.beamCount = 3
            $0.stopTokens = [3, 17, 20]
            $0.beams.lengthPenalty = -0.5
        },
        Case(name: "no length penalty") {
            $0.beamCount = 3
            $0.stopTokens = [3, 17]
            $0.beams.stopping = .never
            $0.beams.lengthPenalty = 0
        },
        Case(name: "diversity") {
            $0.beamCount = 4
            $0.stopTokens = [3]
            $0.beams.diversity = 0.5
        },
        Case(name: "all settings") {
            $0.beamCount = 3
            $0.stopTokens = [3, 17, 20]
            $0.minTokens = 5
            $0.noRepeatNGram = 2
            $0.badWords = [[8], [9, 10]]
            $0.repetitionPenalty = 1.5
            $0.logitBias = [11: 2, 12: -1]
        },
        Case(name: "8 beams") {
            $0.beamCount = 8
            $0.answerCount = 8
            $0.stopTokens = [3]
        },
    ]

    @Test(arguments: cases, [1, 2]) func findsWhatAPlainSearchFinds(c: Case, depth: Int) throws {
        let groups = [FakeModel.group(blockSize: 4), FakeModel.group(window: 7, blockSize: 2)]
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 16, maxRequests: 12, maxLogitRows: 12, maxContext: 64),
            groups: groups, pageCount: 900)
        var options = InferenceEngine.Options()
        options.stepsInFlight = depth
        let engine = try InferenceEngine(executor: executor, options: options)
        var settings = SamplingSettings()
        settings.maxTokens = 12
        c.set(&settings)
        settings.answerCount = settings.beamCount
        let asked = (0..<8).map { seed in
            GenerationRequest(
                prompt: (0..<5 + seed * 3).map { Int32(($0 * 7 + seed) % 48) }, settings: settings)
        }
        var single = SamplingSettings()
        single.maxTokens = 30
        let others = (0..<4).map { GenerationRequest(prompt: [Int32($0), 2], settings: single) }
        let outputs = try engine.generateBatch(asked + others)
        let model = executor.model.withLock { $0 }
        for (request, output) in zip(asked, outputs) {
            let expected = PlainSearch(model: model, settings: settings).run(request.prompt)
            let found = [output] + output.alternatives
            #expect(output.failure == nil)
            #expect(found.map(\.tokens) == expected.map(\.tokens))
            for (found, expected) in zip(found, expected) {
                #expect(abs(Double(found.score ?? 0) - expected.score) < 1e-4)
                let stops = settings.stopTokens.contains(found.tokens.last ?? -1)
                #expect(found.finishReason == (stops ? .stopToken : .length))
            }
        }
        for (request, output) in zip(others, outputs.dropFirst(8)) {
            #expect(output.tokens == executor.answer(request))
        }
        #expect(executor.violations.isEmpty)
        #expect(engine.statistics.freePageCount == 900)
    }

    /// A penalty far below 0 makes scores that no limit of ours may take for impossible.
    @Test(arguments: [-10, -40, 40] as [Float]) func extremePenaltiesGiveAnswers(penalty: Float) {
        var settings = SamplingSettings()
        settings.beamCount = 4
        settings.beams.lengthPenalty = penalty
        var search = BeamSearch(settings, maxTokens: 12)
        let list = (0..<8).map { TokenLogProbability(token: $0, logProbability: -1 - Float($0)) }
        var steps = 0
        while !search.isDone, steps < 20 {
            _ = search.advance([[TokenLogProbability]](repeating: list, count: steps == 0 ? 1 : 4))
            steps += 1
        }
        #expect(search.isDone && steps <= 12)
        #expect(search.answers(4).count == 4)
    }

    @Test func beamsShareTheirBlocks() throws {
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 32, maxRequests: 8, maxLogitRows: 8, maxContext: 64),
            pageCount: 200)
        let engine = try InferenceEngine(executor: executor)
        var settings = SamplingSettings()
        settings.maxTokens = 10
        settings.beamCount = 4
        let asked = GenerationRequest(prompt: (0..<32).map { Int32($0) }, settings: settings)
        _ = try engine.generateBatch([asked])
        // The prompt once; then each step one token a beam.
        #expect(engine.statistics.prefillTokenCount == 32)
        #expect(engine.statistics.decodeTokenCount == 4 * 9)
        #expect(engine.statistics.freePageCount == 200)
    }

    @Test func refusesMoreBeamsThanRows() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        var settings = SamplingSettings()
        settings.beamCount = 9
        let error = try #require(throws: MartletError.self) {
            try engine.generateBatch([GenerationRequest(prompt: [1], settings: settings)])
        }
        #expect(error.mend?.contains("--num-beams") == true)
        settings.beamCount = 2
        settings.maxTokens = 0
        #expect(throws: MartletError.self) {
            try engine.generateBatch([GenerationRequest(prompt: [1], settings: settings)])
        }
    }

    @Test func abandonedSearchesLeaveNothing() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try InferenceEngine(executor: executor)
        var settings = SamplingSettings()
        settings.maxTokens = 30
        settings.beamCount = 4
        do {
            _ = try engine.generate(GenerationRequest(prompt: [1, 2, 3], settings: settings))
            executor.release(6)
        }
        executor.release(40)
        let isFree = try await eventually {
            engine.statistics.cancelledRequestCount > 0 && engine.statistics.freePageCount == 128
        }
        #expect(isFree, "\(engine.statistics)")
    }

    @Test func aBeamWithBadLogitsEndsItsSearch() throws {
        let executor = FakeExecutor(nonFiniteStep: 3)
        let engine = try InferenceEngine(executor: executor)
        var settings = SamplingSettings()
        settings.maxTokens = 10
        settings.beamCount = 3
        let output = try engine.generateBatch([
            GenerationRequest(prompt: [1, 2, 3], settings: settings)
        ])[0]
        #expect(output.finishReason == .error)
        #expect(output.failure?.message.contains("not finite") == true)
        #expect(engine.statistics.freePageCount == 128)
    }
}
