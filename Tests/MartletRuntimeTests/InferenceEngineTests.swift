// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

@Suite(.serialized, .timeLimit(.minutes(3))) struct InferenceEngineTests {
    private func requests(_ count: Int, seed: Int) -> [GenerationRequest] {
        var random = TestRandom(seed)
        return (0..<count).map { _ in random.request(vocabulary: 48, prompt: 30, answer: 20) }
    }

    private func request(_ prompt: [Int32], _ count: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = count
        return GenerationRequest(prompt: prompt, settings: settings)
    }

    private func waitUntilIdle(_ engine: InferenceEngine, pages: Int) async throws {
        let isIdle = try await eventually {
            let now = engine.statistics
            return now.freePageCount == pages && now.activeCount == 0 && now.waitingCount == 0
        }
        #expect(isIdle, "\(engine.statistics)")
    }

    @Test(arguments: [1, 2], [1, 5, 16, 64])
    func answersDoNotDependOnBatchChunksOrOverlap(inFlight: Int, chunk: Int) throws {
        let groups = [FakeModel.group(blockSize: 4), FakeModel.group(window: 7, blockSize: 2)]
        let asked = requests(40, seed: 9)
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: chunk, maxRequests: 6, maxLogitRows: 5, maxContext: 50),
            groups: groups, pageCount: 400)
        var options = InferenceEngine.Options()
        options.stepsInFlight = inFlight
        let engine = try InferenceEngine(executor: executor, options: options)
        let outputs = try engine.generateBatch(asked)
        for (request, output) in zip(asked, outputs) {
            #expect(output.tokens == executor.answer(request))
            #expect(output.failure == nil)
        }
        #expect(executor.violations.isEmpty)
        // That steps overlap is shown where the device waits: `cancellingEndsARequestWithinOneStep`.
        #expect(executor.greatestDepth <= inFlight)
        let alone = try engine.generateBatch([asked[3]])
        #expect(alone[0].tokens == outputs[3].tokens)
        #expect(engine.statistics.finishedRequestCount == 41)
    }

    @Test func streamsTokensAndText() async throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor, decoding: FakeDecoding())
        let asked = request([1, 2, 3], 8)
        var output = GenerationOutput()
        for try await event in try engine.generate(asked) {
            if event.token != nil { #expect(event.index == output.tokens.count) }
            output.append(event)
        }
        #expect(output.tokens == executor.answer(asked))
        #expect(output.finishReason == .length)
        #expect(output.text == output.tokens.map(FakeDecoding.piece).joined() + ".")
    }

    @Test func stopsAtAStopStringAcrossTokens() throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor, decoding: FakeDecoding())
        var asked = request([5, 6], 12)
        let pieces = executor.answer(asked).map(FakeDecoding.piece)
        let text = pieces.joined()
        let stop = String(text.dropFirst(8).prefix(5))
        let bytes = Array(text.utf8)
        let place = bytes.indices.first { bytes[$0...].starts(with: Array(stop.utf8)) } ?? 0
        asked.settings.stopStrings = ["?", stop]
        let output = try engine.generateBatch([asked])[0]
        #expect(output.finishReason == .stopString)
        #expect(output.text == String(decoding: bytes[..<place], as: UTF8.self))
        #expect(output.tokens.count == (place + 5 + 2) / 3)
        asked.settings.minTokens = 12
        let whole = try engine.generateBatch([asked])[0]
        #expect(whole.finishReason == .length)
        #expect(whole.text == text + ".")
    }

    @Test func minTokensForbidStopTokens() throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor, decoding: FakeDecoding())
        var asked = request([7, 8, 9], 10)
        let free = executor.answer(asked)
        asked.settings.stopTokens = [free[0], free[2]]
        let short = try engine.generateBatch([asked])[0]
        #expect(short.tokens == [free[0]])
        #expect(short.text == ".")
        #expect(short.finishReason == .stopToken)
        asked.settings.minTokens = 5
        let long = try engine.generateBatch([asked])[0]
        #expect(long.tokens.count >= 5)
        #expect(long.tokens.prefix(5).allSatisfy { !asked.settings.stopTokens.contains($0) })
        #expect(long.tokens == executor.answer(asked))
    }

    @Test(arguments: [3, 16]) func returnsLogitsAndLogProbabilities(chunk: Int) throws {
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: chunk, maxRequests: 4, maxLogitRows: 4, maxContext: 64))
        let engine = try InferenceEngine(executor: executor)
        var asked = request([4, 5, 6, 7, 8, 9, 10], 4)
        asked.settings.returnContextLogits = true
        asked.settings.returnGenerationLogits = true
        asked.settings.logProbabilities = 3
        var other = request([1, 1], 6)
        other.settings.returnGenerationLogits = true
        let outputs = try engine.generateBatch([other, asked, request([3], 5), other])
        let output = outputs[1]
        let model = executor.model.withLock { $0 }
        let tokens = asked.prompt + output.tokens
        #expect(output.contextLogits == (1...7).map { model.logits(after: Array(tokens[..<$0])) })
        #expect(
            output.generationLogits == (7...10).map { model.logits(after: Array(tokens[..<$0])) })
        #expect(output.logProbabilities.count == 4)
        #expect(output.topLogProbabilities.allSatisfy { $0.count == 3 })
        for (token, (value, top)) in zip(
            output.tokens, zip(output.logProbabilities, output.topLogProbabilities))
        {
            #expect(top.first == TokenLogProbability(token: token, logProbability: value))
        }
        #expect(outputs[0].generationLogits.count == 6)
        #expect(outputs[0].generationLogits == outputs[3].generationLogits)
        #expect(outputs[2].generationLogits.isEmpty && outputs[2].logProbabilities.isEmpty)
    }

    @Test func droppingAStreamEndsItsRequest() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try InferenceEngine(executor: executor)
        do {
            var events = try engine.generate(request([1, 2, 3], 50)).makeAsyncIterator()
            executor.release(2)
            #expect(try await events.next()?.token != nil)
        }
        executor.release(200)
        try await waitUntilIdle(engine, pages: 128)
        #expect(engine.statistics.cancelledRequestCount == 1)
        #expect(engine.statistics.generatedTokenCount < 50)
        let asked = request([9, 9], 5)
        #expect(try engine.generateBatch([asked])[0].tokens == executor.answer(asked))
    }

    @Test func cancelledTasksReturnAllPages() async throws {
        let executor = FakeExecutor(pageCount: 200)
        let engine = try InferenceEngine(executor: executor)
        var random = TestRandom(4)
        for _ in 0..<10 {
            let tasks = try (0..<8).map { index in
                let stream = try engine.generate(request([Int32(index), 5, 7], 60))
                return Task {
                    for try await event in stream where event.finishReason != nil { break }
                }
            }
            for task in tasks {
                try await Task.sleep(for: .microseconds(random.below(400)))
                task.cancel()
            }
            for task in tasks { _ = await task.result }
        }
        try await waitUntilIdle(engine, pages: 200)
        #expect(executor.violations.isEmpty)
        let asked = request([1, 2], 20)
        #expect(try engine.generateBatch([asked])[0].tokens == executor.answer(asked))
    }

    @Test func aDeviceErrorEndsAllRequestsAndIsRemembered() throws {
        let executor = FakeExecutor(failingStep: 4)
        let engine = try InferenceEngine(executor: executor)
        let outputs = try engine.generateBatch((0..<12).map { request([Int32($0)], 20) })
        #expect(outputs.allSatisfy { $0.finishReason == .error })
        #expect(outputs.allSatisfy { $0.failure?.message == "the fake device caught fire" })
        #expect(engine.statistics.failedRequestCount == 12)
        let error = try #require(throws: MartletError.self) {
            try engine.generateBatch([request([1], 1)])
        }
        #expect(error.code == .device)
        #expect("\(error)".contains("caught fire"))
        engine.shutdown()
    }

    @Test func aRowThatIsNotFiniteFailsItsRequestOnly() throws {
        let executor = FakeExecutor(nonFiniteStep: 2)
        let engine = try InferenceEngine(executor: executor)
        let asked = (0..<3).map { request([Int32($0), 4], 12) }
        let outputs = try engine.generateBatch(asked)
        #expect(outputs.filter { $0.finishReason == .error }.count == 1)
        for (request, output) in zip(asked, outputs) {
            if output.finishReason == .error {
                #expect(output.failure?.message.contains("not finite") == true)
                #expect(executor.answer(request).starts(with: output.tokens))
            } else {
                #expect(output.tokens == executor.answer(request))
            }
        }
    }

    /// What a request computed whose numbers are none is known to nobody behind it, nor what it had from others.
    @Test(arguments: [false, true]) func nothingOfAFailedRequestIsShared(isKnown: Bool) throws {
        let executor = FakeExecutor(nonFiniteStep: isKnown ? 5 : 2)
        let engine = try InferenceEngine(executor: executor)
        // Steps of 16 tokens: the prompt takes three, and draws in the third.
        let prompt = (0..<40).map { Int32($0 % 7) }
        if isKnown {
            let before = request(Array(prompt.prefix(17)), 3)
            #expect(try engine.generateBatch([before])[0].tokens == executor.answer(before))
        }
        let asked = request(prompt, 8)
        let known = isKnown ? 17 : 0
        let output = try #require(try engine.generateBatch([asked]).first)
        #expect(output.finishReason == .error && output.tokens.isEmpty)
        #expect(output.failure?.mend?.contains("--dtype") == true)
        #expect(engine.statistics.reusedTokenCount == known)
        let again = try #require(try engine.generateBatch([asked]).first)
        #expect(again.tokens == executor.answer(asked))
        #expect(engine.statistics.reusedTokenCount == known)
        #expect(engine.statistics.failedRequestCount == 1)
        let statistics = engine.statistics
        #expect(statistics.freePageCount == 128)
        engine.shutdown()
    }

    /// Rows of a prompt that are no numbers are an error, even where nothing is drawn.
    @Test(arguments: [0, 1, 2]) func rowsThatAreNoNumbersFailTheirRequest(step: Int) throws {
        let limits = StepLimits(maxTokens: 16, maxRequests: 8, maxLogitRows: 16, maxContext: 64)
        let executor = FakeExecutor(limits: limits, nonFiniteStep: step)
        let engine = try InferenceEngine(executor: executor)
        var asked = request((0..<40).map { Int32($0 % 7) }, 0)
        asked.settings.returnContextLogits = true
        let output = try #require(try engine.generateBatch([asked]).first)
        #expect(output.finishReason == .error)
        #expect(output.failure?.message.contains("not finite") == true)
        #expect(engine.statistics.failedRequestCount == 1)
        let again = try #require(try engine.generateBatch([asked]).first)
        #expect(again.finishReason == .length && again.contextLogits.count == 40)
        #expect(engine.statistics.reusedTokenCount == 0)
        engine.shutdown()
    }

    @Test func shutdownEndsRequestsAndRefusesNewOnes() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try InferenceEngine(executor: executor)
        let stream = try engine.generate(request([1, 2, 3], 50))
        engine.shutdown()
        engine.shutdown()
        executor.release(10)
        let error = await #expect(throws: MartletError.self) {
            for try await _ in stream {}
        }
        #expect(error?.code == .cancelled)
        #expect(throws: MartletError.self) { try engine.generate(request([1], 1)) }
    }

    @Test func refusesRequestsThatCannotRun() throws {
        let engine = try InferenceEngine(executor: FakeExecutor(pageCount: 4))
        #expect(throws: MartletError.self) { try engine.generate(request([], 1)) }
        #expect(throws: MartletError.self) { try engine.generate(request([48], 1)) }
        let long = [Int32](repeating: 1, count: 64)
        let context = try #require(throws: MartletError.self) {
            try engine.generateBatch([request([1], 1), request(long, 1)])
        }
        #expect(context.mend?.contains("--max-context") == true)
        #expect(context.context["request"] == "1")
        let memory = try #require(throws: MartletError.self) {
            try engine.generate(request([1], 40))
        }
        #expect(memory.mend?.contains("--kv-cache-memory") == true)
        var stops = request([1], 1)
        stops.settings.stopStrings = ["x"]
        #expect(throws: MartletError.self) { try engine.generate(stops) }
        #expect(try engine.generateBatch([]).isEmpty)
    }

    @Test func countsTokensAndSteps() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        _ = try engine.generateBatch([request([1, 2, 3, 4, 5], 4), request([1, 2], 7)])
        let now = engine.statistics
        #expect(now.prefillTokenCount == 7)
        #expect(now.decodeTokenCount == 3 + 6)
        #expect(now.tokenCount == 16)
        #expect(now.generatedTokenCount == 11)
        #expect(now.finishedRequestCount == 2)
        #expect(now.stepCount >= 7 && now.stepCount <= 11)
        #expect(now.deviceSeconds > 0)
        #expect(now.kernelCount == 7 * now.stepCount && now.launchCount == 3 * now.stepCount)
    }
}
