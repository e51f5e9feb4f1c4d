// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

/// Settings that look back, closures, several answers: through the whole engine, on the fake model.
@Suite(.timeLimit(.minutes(3))) struct AnswerTests {
    private func request(
        _ prompt: [Int32], _ count: Int, _ set: (inout SamplingSettings) -> Void = { _ in }
    ) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = count
        set(&settings)
        return GenerationRequest(prompt: prompt, settings: settings)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var set: @Sendable (inout SamplingSettings) -> Void
        var testDescription: String { name }
    }

    static let settings: [Case] = [
        Case(name: "no 1-gram twice") { $0.noRepeatNGram = 1 },
        Case(name: "no 2-gram twice") { $0.noRepeatNGram = 2 },
        Case(name: "no 3-gram twice, drawn") {
            $0.noRepeatNGram = 3
            $0.temperature = 1.2
        },
        Case(name: "bad words") {
            $0.badWords = [[3], [5, 6], [7, 8, 9]] + (0..<48).map { [$0, ($0 * 7 + 1) % 48] }
        },
        Case(name: "top-p decay") {
            $0.temperature = 1.5
            $0.topPDecay = 0.7
            $0.topPMinimum = 0.1
        },
        Case(name: "top-p decay, reset") {
            $0.temperature = 1.5
            $0.topPDecay = 0.6
            $0.topPMinimum = 0.05
            $0.topPReset = 11
        },
        Case(name: "typical") {
            $0.temperature = 1
            $0.typicalP = 0.5
        },
        Case(name: "all") {
            $0.temperature = 0.9
            $0.topK = 30
            $0.topP = 0.95
            $0.topPDecay = 0.98
            $0.minP = 0.01
            $0.typicalP = 0.9
            $0.repetitionPenalty = 1.2
            $0.presencePenalty = 0.1
            $0.frequencyPenalty = 0.2
            $0.noRepeatNGram = 2
            $0.badWords = [[1], [2, 3]]
            $0.logitBias = [5: 1, 6: -.infinity]
            $0.stopTokens = [9]
            $0.minTokens = 6
        },
    ]

    @Test(arguments: settings, [1, 2]) func answersAreThoseOfAPlainLoop(c: Case, depth: Int) throws
    {
        let executor = FakeExecutor()
        var options = InferenceEngine.Options()
        options.stepsInFlight = depth
        let engine = try InferenceEngine(executor: executor, options: options)
        let asked = (0..<12).map { seed in
            request([Int32(seed), 4, 5, 6, 4], 24) {
                c.set(&$0)
                $0.seed = UInt64(seed)
            }
        }
        // A closure that changes nothing: the same tokens, drawn on the host.
        let hosted = asked.map { request in
            var request = request
            request.settings.processors = [LogitsProcessor { _, _ in }]
            return request
        }
        let outputs = try engine.generateBatch(asked + hosted)
        for (index, request) in (asked + asked).enumerated() {
            #expect(outputs[index].tokens == executor.answer(request), "\(index)")
        }
        #expect(executor.violations.isEmpty)
    }

    @Test func moreBansThanBiasesCanSayBecomeAMask() throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let crowded = request([1, 2, 3], 30) {
            $0.noRepeatNGram = 1
            $0.logitBias = Dictionary(uniqueKeysWithValues: (0..<40).map { (Int32($0), 0.25) })
            $0.stopTokens = (0..<340).map { _ in 47 }
        }
        let plain = request([1, 2, 3, 4], 30)
        let outputs = try engine.generateBatch([crowded, plain, crowded])
        for (output, asked) in zip(outputs, [crowded, plain, crowded]) {
            #expect(output.failure == nil)
            #expect(output.tokens == executor.answer(asked))
        }
    }

    @Test func aClosureChoosesTheTokens() throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let counting = LogitsProcessor { context, logits in
            let wanted = (context.prompt.count + context.answer.count) % 48
            for index in logits.indices where index != wanted { logits[index] = -.infinity }
        }
        let doubled = LogitsProcessor { _, logits in for i in logits.indices { logits[i] *= 2 } }
        let asked = request([7, 7, 7], 6) {
            $0.processors = [doubled, counting]
            $0.temperature = 1
            $0.logProbabilities = 2
        }
        let output = try engine.generateBatch([request([1], 9), asked])[1]
        #expect(output.tokens == [3, 4, 5, 6, 7, 8])
        // Log-probabilities are the model's own.
        let model = executor.model.withLock { $0 }
        let logits = model.logits(after: [7, 7, 7])
        let best = logits.firstIndex(of: logits.max() ?? 0)
        #expect(output.topLogProbabilities[0].first.map { Int($0.token) } == best)
        let difference =
            output.topLogProbabilities[0][0].logProbability - output.logProbabilities[0]
        #expect(abs(difference - ((logits.max() ?? 0) - logits[3])) < 1e-5)
    }

    @Test func aFailingClosureEndsItsRequestOnly() throws {
        struct Broken: Error {}
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let throwing = LogitsProcessor { context, _ in
            if context.answer.count == 3 { throw Broken() }
        }
        let nan = LogitsProcessor { _, logits in logits[5] = .nan }
        let shorter = LogitsProcessor { _, logits in logits.removeLast() }
        let nothing = LogitsProcessor { _, logits in
            for index in logits.indices { logits[index] = -.infinity }
        }
        let good = request([1, 2], 12)
        let asked = [throwing, nan, shorter, nothing].map { processor in
            request([1, 2], 12) { $0.processors = [processor] }
        }
        let outputs = try engine.generateBatch([good] + asked + [good])
        #expect(outputs[0].tokens == executor.answer(good))
        #expect(outputs[5].tokens == executor.answer(good))
        #expect(outputs[1].tokens == Array(executor.answer(good).prefix(3)))
        let messages = outputs[1...4].map { $0.failure?.message ?? "none" }
        #expect(messages[0].contains("failed at token 3"))
        #expect(outputs[1].failure?.cause is Broken)
        #expect(messages[1].contains("logit 5"))
        #expect(messages[2].contains("47 logits of 48"))
        #expect(messages[3].contains("forbid every token"))
        #expect(engine.statistics.failedRequestCount == 4)
        #expect(engine.statistics.freePageCount == engine.statistics.pageCount)
    }

    /// A request that gave up its blocks and computes its prompt again tells the prompt's rows once.
    @Test(arguments: [PreemptionMode.recompute, .swap])
    func promptRowsAreToldOnce(preemption: PreemptionMode) throws {
        let executor = FakeExecutor(pageCount: 40, hostPageCount: 40)
        var options = InferenceEngine.Options()
        options.policy = .maxUtilization
        options.preemption = preemption
        let engine = try InferenceEngine(executor: executor, options: options)
        let asked = (0..<6).map { seed in
            request((0..<12).map { Int32(($0 + seed * 5) % 48) }, 40) {
                $0.promptLogProbabilities = 1
                $0.returnContextLogits = true
            }
        }
        for (request, output) in zip(asked, try engine.generateBatch(asked)) {
            #expect(output.promptLogProbabilities.map(\.token) == Array(request.prompt.dropFirst()))
            #expect(output.contextLogits.count == 12)
            #expect(output.tokens == executor.answer(request))
        }
        #expect(engine.statistics.preemptionCount > 0)
    }

    @Test(arguments: [nil, 1])
    func severalAnswersShareThePrompt(promptLogProbabilities: Int?) throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let prompt = (0..<30).map { Int32($0) }
        let asked = request(prompt, 8) {
            $0.temperature = 1.5
            $0.promptLogProbabilities = promptLogProbabilities
            $0.answerCount = 4
            $0.seed = 11
        }
        let output = try engine.generateBatch([asked])[0]
        let answers = [output] + output.alternatives
        #expect(answers.count == 4)
        #expect(output.promptLogProbabilities.count == (promptLogProbabilities == nil ? 0 : 29))
        #expect(Set(answers.map(\.tokens)).count == 4)
        for (index, answer) in answers.enumerated() {
            var alone = asked
            alone.settings.answerCount = 1
            alone.settings.seed &+= UInt64(index) &* 0x9e37_79b9_7f4a_7c15
            #expect(answer.tokens == executor.answer(alone))
            #expect(answer.finishReason == .length)
        }
        // The prompt once, and what follows its whole blocks for each of the others.
        #expect(engine.statistics.prefillTokenCount == 30 + 3 * 2)
    }

    @Test func streamsTellAnswersApart() async throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor, decoding: FakeDecoding())
        let asked = request([1, 2, 3], 5) {
            $0.temperature = 1.5
            $0.answerCount = 3
        }
        var outputs = [GenerationOutput](repeating: GenerationOutput(), count: 3)
        for try await event in try engine.generate(asked) { outputs[event.choice].append(event) }
        let batch = try engine.generateBatch([asked])[0]
        #expect(outputs.map(\.tokens) == ([batch] + batch.alternatives).map(\.tokens))
        #expect(outputs.map(\.text) == ([batch] + batch.alternatives).map(\.text))
    }

    @Test func cancellingEndsAllAnswers() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try InferenceEngine(executor: executor)
        let asked = request([1, 2, 3], 60) {
            $0.temperature = 1.5
            $0.answerCount = 4
        }
        executor.release(3)
        for try await event in try engine.generate(asked) where event.token != nil { break }
        executor.release(500)
        let isFree = try await eventually {
            engine.statistics.cancelledRequestCount == 4 && engine.statistics.freePageCount == 128
        }
        #expect(isFree, "\(engine.statistics)")
    }

    @Test func theLikeliestOfSeveralComesFirst() throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let asked = request([5, 6, 7], 6) {
            $0.temperature = 1.5
            $0.answerCount = 2
            $0.bestOf = 6
            $0.promptLogProbabilities = 1
        }
        var all = asked
        all.settings.bestOf = nil
        all.settings.answerCount = 6
        all.settings.logProbabilities = 0
        let outputs = try engine.generateBatch([asked, all])
        let drawn = [outputs[1]] + outputs[1].alternatives
        let ranked = drawn.sorted {
            $0.logProbabilities.reduce(0, +) > $1.logProbabilities.reduce(0, +)
        }
        let best = [outputs[0]] + outputs[0].alternatives
        #expect(best.map(\.tokens) == ranked.prefix(2).map(\.tokens))
        #expect(best.allSatisfy { $0.logProbabilities.isEmpty })
        #expect(best[0].promptLogProbabilities.count == 2)
    }

    @Test(arguments: [3, 16]) func logProbabilitiesOfThePrompt(chunk: Int) throws {
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: chunk, maxRequests: 3, maxLogitRows: 3, maxContext: 64))
        let engine = try InferenceEngine(executor: executor)
        let asked = request([4, 5, 6, 7, 8, 9, 10], 2) { $0.promptLogProbabilities = 3 }
        let output = try engine.generateBatch([request([4, 5, 6, 7], 3), asked])[1]
        let model = executor.model.withLock { $0 }
        #expect(output.promptLogProbabilities.map(\.token) == [5, 6, 7, 8, 9, 10])
        #expect(output.contextLogits.isEmpty)
        for (index, found) in output.promptLogProbabilities.enumerated() {
            let row = model.logits(after: Array(asked.prompt[...index]))
            let expected = Self.logSoftmax(row)
            #expect(abs(Double(found.logProbability) - expected[Int(found.token)]) < 1e-5)
            #expect(found.topLogProbabilities.count == 3)
            let best = expected.indices.max { expected[$0] < expected[$1] }
            #expect(found.topLogProbabilities.first.map { Int($0.token) } == best)
        }
        #expect(output.tokens == executor.answer(asked))
    }

    static func logSoftmax(_ row: [Float]) -> [Double] {
        // exp by halving, so that the test needs no C library.
        func exp(_ x: Double) -> Double {
            var term = 1.0, sum = 1.0
            for k in 1..<20 {
                term *= x / 1024 / Double(k)
                sum += term
            }
            for _ in 0..<10 { sum *= sum }
            return sum
        }
        let best = Double(row.max() ?? 0)
        let sum = row.reduce(0) { $0 + exp(Double($1) - best) }
        // log by Newton's steps.
        var log = 0.0
        for _ in 0..<60 { log += 2 * (sum - exp(log)) / (sum + exp(log)) }
        return row.map { Double($0) - best - log }
    }
}
