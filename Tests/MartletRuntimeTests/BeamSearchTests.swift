// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

/// Searches with beams through the whole engine, against `PlainBeamSearch`.
@Suite(.timeLimit(.minutes(3))) struct BeamSearchTests {
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
        Case(name: "stop strings") {
            $0.beamCount = 3
            $0.stopTokens = [3]
            $0.stopStrings = stopStrings
        },
        Case(name: "stop strings not at once, early") {
            $0.beamCount = 4
            $0.minTokens = 4
            $0.stopStrings = stopStrings
            $0.beams.stopping = .early
        },
        Case(name: "stop strings in most answers") {
            $0.beamCount = 2
            $0.stopStrings = ["ad", "be", "cf", "dg", "ea", "fb"]
        },
        Case(name: "more log-probabilities than candidates, logits") {
            $0.beamCount = 2
            $0.logProbabilities = 12
            $0.returnGenerationLogits = true
        },
        Case(name: "fewer log-probabilities than candidates") {
            $0.beamCount = 3
            $0.logProbabilities = 1
            $0.repetitionPenalty = 1.5
            $0.stopStrings = stopStrings
        },
        Case(name: "no likeliest tokens") {
            $0.beamCount = 3
            $0.logProbabilities = 0
        },
    ]

    /// Texts across two tokens and within one.
    static let stopStrings = ["gb", "bc", "fbea"]

    @Test(arguments: cases, [1, 2]) func findsWhatAPlainSearchFinds(c: Case, depth: Int) throws {
        let groups = [FakeModel.group(blockSize: 4), FakeModel.group(window: 7, blockSize: 2)]
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 16, maxRequests: 12, maxLogitRows: 12, maxContext: 64),
            groups: groups, pageCount: 900)
        var options = InferenceEngine.Options()
        options.stepsInFlight = depth
        let engine = try InferenceEngine(
            executor: executor, decoding: FakeDecoding(), options: options)
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
        let search = PlainBeamSearch(model: model, settings: settings)
        for (request, output) in zip(asked, outputs) { search.expect(output, of: request.prompt) }
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
            let row = BeamSearch.Row(likeliest: list)
            _ = search.advance([BeamSearch.Row](repeating: row, count: steps == 0 ? 1 : 4))
            steps += 1
        }
        #expect(search.isDone && steps <= 12)
        #expect(search.answers(4).count == 4)
    }

    /// How requests of all settings run beside others.
    struct Company: Sendable, CustomTestStringConvertible {
        var name: String
        var depth = 2
        var reusesPrefixes = true
        var pageCount = 900
        var preemption = PreemptionMode.recompute
        var testDescription: String { name }
    }

    static let companies = [
        Company(name: "two steps in flight"), Company(name: "one step in flight", depth: 1),
        Company(name: "no prefix cache", reusesPrefixes: false),
        Company(name: "others recomputed", pageCount: 90),
        Company(name: "others swapped", pageCount: 90, preemption: .swap),
    ]

    @Test(arguments: companies) func allSettingsCompose(company: Company) throws {
        let groups = [FakeModel.group(blockSize: 4), FakeModel.group(window: 7, blockSize: 2)]
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 16, maxRequests: 12, maxLogitRows: 12, maxContext: 64),
            groups: groups, pageCount: company.pageCount, hostPageCount: 60)
        var options = InferenceEngine.Options()
        options.stepsInFlight = company.depth
        options.reusesPrefixes = company.reusesPrefixes
        options.policy = company.pageCount < 900 ? .maxUtilization : .guaranteedNoEvict
        options.preemption = company.preemption
        let engine = try InferenceEngine(
            executor: executor, decoding: FakeDecoding(), options: options)
        var settings = SamplingSettings()
        (settings.beamCount, settings.answerCount) = (3, 3)
        (settings.maxTokens, settings.minTokens) = (14, 4)
        (settings.stopTokens, settings.stopStrings) = ([3, 17, 20, 21], Self.stopStrings)
        (settings.noRepeatNGram, settings.badWords) = (2, [[8], [9, 10]])
        settings.repetitionPenalty = 1.5
        settings.logitBias = [11: 2, 12: -1, 17: 2]
        settings.logProbabilities = 20
        settings.returnGenerationLogits = true
        (settings.beams.lengthPenalty, settings.beams.diversity) = (0.5, 0.25)
        settings.processors = [
            LogitsProcessor { context, row in row[context.answer.count * 5 % 48] += 1 }
        ]
        let beginning = (0..<8).map { Int32($0) }
        let asked = (0..<6).map { seed in
            var request = GenerationRequest(
                prompt: beginning + (0..<3 + seed).map { Int32(($0 * 7 + seed) % 48) },
                settings: settings)
            if seed % 3 == 2 { request.settings.promptLogProbabilities = 2 }
            return request
        }
        var single = SamplingSettings()
        single.maxTokens = 50
        let others = (0..<8).map { GenerationRequest(prompt: [Int32($0), 2], settings: single) }
        let outputs = try engine.generateBatch(others + asked)
        let search = PlainBeamSearch(model: executor.model.withLock { $0 }, settings: settings) {
            $1[$0.count * 5 % 48] += 1
        }
        for (request, output) in zip(asked, outputs.dropFirst(8)) {
            search.expect(output, of: request.prompt)
            let isAsked = request.settings.promptLogProbabilities != nil
            #expect(
                output.promptLogProbabilities.count == (isAsked ? request.prompt.count - 1 : 0))
        }
        for (request, output) in zip(others, outputs) {
            #expect(output.tokens == executor.answer(request))
        }
        let finishes = outputs.dropFirst(8).flatMap { [$0] + $0.alternatives }.map(\.finishReason)
        #expect(Set(finishes).isSuperset(of: [.stopString, .stopToken]))
        #expect((engine.statistics.reusedTokenCount > 0) == company.reusesPrefixes)
        #expect((engine.statistics.preemptionCount > 0) == (company.pageCount < 900))
        #expect((engine.statistics.swapCount > 0) == (company.preemption == .swap))
        #expect(executor.violations.isEmpty)
        #expect(engine.statistics.freePageCount == company.pageCount)
    }

    /// What a stream is told of a search is what a batch returns.
    @Test func streamsTellWhatASearchFound() async throws {
        let engine = try InferenceEngine(executor: FakeExecutor(), decoding: FakeDecoding())
        var settings = SamplingSettings()
        settings.maxTokens = 12
        (settings.beamCount, settings.answerCount) = (3, 2)
        settings.stopStrings = Self.stopStrings
        settings.logProbabilities = 2
        let asked = GenerationRequest(prompt: [1, 2, 3], settings: settings)
        var found = [GenerationOutput](repeating: GenerationOutput(), count: 2)
        for try await event in try engine.generate(asked) {
            #expect(event.index == nil || event.logProbability != nil)
            found[event.choice].append(event)
        }
        let batch = try engine.generateBatch([asked])[0]
        for (one, other) in zip(found, [batch] + batch.alternatives) {
            #expect(one.tokens == other.tokens && one.text == other.text)
            #expect(one.logProbabilities == other.logProbabilities)
            #expect(one.finishReason == other.finishReason && one.score == other.score)
        }
        let count = found.reduce(0) { $0 + $1.tokens.count }
        #expect(engine.statistics.generatedTokenCount == 2 * count)
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

    /// Where nothing may follow any beam, answers that have ended are all there is; without any it is an error.
    @Test(arguments: [true, false]) func aSearchEndsWhereAllBeamsDo(hasAnswers: Bool) throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        var settings = SamplingSettings()
        settings.maxTokens = 10
        (settings.beamCount, settings.answerCount) = (3, 3)
        settings.beams.stopping = .never
        if hasAnswers { settings.stopTokens = Array(0..<24) }
        settings.processors = [
            LogitsProcessor { context, row in
                if context.answer.count == 2 { row = row.map { _ in -.infinity } }
            }
        ]
        let output = try engine.generateBatch([
            GenerationRequest(prompt: [1, 2, 3], settings: settings)
        ])[0]
        #expect(engine.statistics.freePageCount == 128)
        guard hasAnswers else {
            #expect(output.failure?.message.contains("forbid every token") == true)
            return
        }
        #expect(output.failure == nil && !output.tokens.isEmpty)
        #expect(([output] + output.alternatives).allSatisfy { $0.tokens.count <= 2 })
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
