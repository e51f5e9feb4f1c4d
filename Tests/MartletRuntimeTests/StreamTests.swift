// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

@Suite(.serialized, .timeLimit(.minutes(3))) struct StreamTests {
    private func request(_ prompt: [Int32], _ count: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = count
        return GenerationRequest(prompt: prompt, settings: settings)
    }

    private func engine(
        _ executor: FakeExecutor, _ set: (inout InferenceEngine.Options) -> Void = { _ in }
    ) throws -> InferenceEngine {
        var options = InferenceEngine.Options()
        set(&options)
        return try InferenceEngine(executor: executor, options: options)
    }

    private func wait(_ what: String, until holds: () -> Bool) async throws {
        #expect(try await eventually(holds), "never: \(what)")
    }

    private func read(_ stream: GenerationEvents) async throws -> [Int32] {
        var tokens: [Int32] = []
        for try await event in stream { if let token = event.token { tokens.append(token) } }
        return tokens
    }

    @Test(arguments: [1, 2]) func cancellingEndsARequestWithinOneStep(depth: Int) async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try engine(executor) { $0.stepsInFlight = depth }
        let stream = try engine.generate(request([1, 2, 3], 50))
        let task = Task { try await read(stream) }
        executor.release(5)
        try await wait("five tokens") { engine.statistics.generatedTokenCount == 5 }
        try await wait("steps in flight") { executor.submittedSteps == 5 + depth }
        task.cancel()
        try await wait("the cancellation") { engine.statistics.cancelledRequestCount == 1 }
        executor.release(50)
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
        // Those in flight ran; none was begun after the cancellation.
        #expect(executor.submittedSteps == 5 + depth)
        #expect(try await task.value.count <= 5)
    }

    @Test func aSlowReaderPausesItsOwnRequestOnly() async throws {
        let executor = FakeExecutor()
        let engine = try engine(executor) { $0.streamCapacity = 8 }
        let slow = request([1, 2, 3], 60), quick = request([4, 5], 60)
        let stream = try engine.generate(slow)
        #expect(try await read(engine.generate(quick)) == executor.answer(quick))
        // Eight events and those of steps that were in flight.
        try await wait("the pause") { engine.statistics.generatedTokenCount >= 60 + 8 }
        try await Task.sleep(for: .milliseconds(20))
        #expect(engine.statistics.generatedTokenCount <= 60 + 8 + 2)
        #expect(engine.statistics.activeCount == 1)
        #expect(try await read(stream) == executor.answer(slow))
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
    }

    /// Events of steps in flight come behind the pause: they do not end it.
    @Test func aReaderAmidStepsInFlightEndsThePause() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try engine(executor) { $0.streamCapacity = 8 }
        let asked = request([1, 2, 3], 40)
        let stream = try engine.generate(asked)
        executor.release(8)
        try await wait("the pause") { engine.statistics.generatedTokenCount == 8 }
        try await wait("steps in flight") { executor.submittedSteps == 10 }
        let task = Task { [self] in
            var tokens: [Int32] = []
            for try await event in stream {
                if let token = event.token { tokens.append(token) }
                guard tokens.count == 3 else { continue }
                executor.release(2)
                try await wait("those in flight") { engine.statistics.generatedTokenCount == 10 }
                executor.release(100)
            }
            return tokens
        }
        let isAnswered = try await eventually { engine.statistics.generatedTokenCount == 40 }
        #expect(isAnswered, "never: the answer")
        if !isAnswered { task.cancel() }
        #expect(try await task.value == executor.answer(asked))
    }

    /// Readers that are behind hold no row that another wants.
    @Test(arguments: [SchedulingPolicy.guaranteedNoEvict, .maxUtilization])
    func slowReadersLetOthersIn(policy: SchedulingPolicy) async throws {
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 64))
        let engine = try engine(executor) {
            $0.streamCapacity = 4
            $0.policy = policy
        }
        let slow = [request([1, 2, 3], 30), request([4, 5], 30)]
        let streams = try slow.map { try engine.generate($0) }
        for id in 6...8 {
            let quick = request([Int32(id)], 20)
            #expect(try await read(engine.generate(quick)) == executor.answer(quick))
        }
        for (stream, request) in zip(streams, slow) {
            #expect(try await read(stream) == executor.answer(request))
        }
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
        #expect(executor.violations.isEmpty)
    }

    @Test func aDroppedStreamThatWasNeverReadEndsItsRequest() async throws {
        let executor = FakeExecutor()
        let engine = try engine(executor) { $0.streamCapacity = 4 }
        _ = try engine.generate(request([1, 2, 3], 60))
        try await wait("the cancellation") { engine.statistics.cancelledRequestCount == 1 }
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
        #expect(engine.statistics.generatedTokenCount < 60)
    }

    /// Also where the events are still held.
    @Test func leavingTheLoopEndsTheRequest() async throws {
        let executor = FakeExecutor()
        let engine = try engine(executor) { $0.streamCapacity = 4 }
        let events = try engine.generate(request([1, 2, 3], 60))
        for try await event in events where event.token != nil { break }
        try await wait("the cancellation") { engine.statistics.cancelledRequestCount == 1 }
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
        #expect(engine.statistics.generatedTokenCount < 60)
        await #expect(throws: MartletError.self, "nobody reads twice") { try await read(events) }
    }

    @Test func aSecondReaderGetsAnError() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try engine(executor)
        let asked = request([1, 2, 3], 10)
        let events = try engine.generate(asked)
        let first = Task { try await read(events) }
        try await wait("a step") { executor.submittedSteps == 2 }
        // Whichever comes second.
        let second = Task { try await read(events) }
        executor.release(100)
        let results = await [first.result, second.result]
        #expect(results.compactMap { try? $0.get() } == [executor.answer(asked)])
        for case .failure(let error) in results {
            #expect("\(error)".contains("a request's events have one reader"))
        }
    }

    @Test func aReaderThatWaitsIsToldOfTheCancellation() async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try engine(executor)
        let stream = try engine.generate(request([1, 2, 3], 60))
        let task = Task { try await read(stream) }
        try await wait("a step") { executor.submittedSteps == 2 }
        task.cancel()
        #expect(try await task.value.isEmpty)
        executor.release(10)
        try await wait("all pages") { engine.statistics.freePageCount == 128 }
    }

    @Test func aFullQueueRefusesStreamsAtOnce() async throws {
        let executor = FakeExecutor(
            limits: StepLimits(maxTokens: 8, maxRequests: 1, maxLogitRows: 1, maxContext: 64),
            isGated: true)
        let engine = try engine(executor) { $0.queueLimit = 3 }
        let first = try engine.generate(request([1], 2))
        try await wait("the first runs") { engine.statistics.activeCount == 1 }
        let others = try (0..<3).map { _ in try engine.generate(request([2], 2)) }
        let error = try #require(throws: MartletError.self) {
            try engine.generate(request([3], 2))
        }
        #expect(error.code == .limitExceeded)
        #expect(error.message.contains("3 requests wait"))
        executor.release(100)
        for stream in [first] + others { #expect(try await read(stream).count == 2) }
        #expect(try await read(engine.generate(request([3], 2))).count == 2)
        // Batches have no reader to refuse.
        #expect(try engine.generateBatch((0..<9).map { _ in request([1], 1) }).count == 9)
    }

    /// Whether the engine's thread has looked at them or not.
    @Test(arguments: [0, 4])
    func aBurstFillsTheRowsAndTheQueue(queueLimit: Int) async throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try engine(executor) { $0.queueLimit = queueLimit }
        let streams = (0..<60).compactMap { try? engine.generate(request([Int32($0 % 48)], 2)) }
        #expect(streams.count == executor.limits.maxRequests + queueLimit)
        executor.release(1000)
        for stream in streams { #expect(try await read(stream).count == 2) }
    }

    @Test func aDeviceErrorEndsAllStreamsWithOneCause() async throws {
        let engine = try engine(FakeExecutor(failingStep: 4))
        let streams = try (0..<6).map { try engine.generate(request([Int32($0)], 40)) }
        var messages: [String] = []
        for stream in streams {
            do { _ = try await read(stream) } catch let error as MartletError {
                messages.append(error.message)
            }
        }
        #expect(messages == [String](repeating: "the fake device caught fire", count: 6))
    }

    @Test func namedOutputsOfARequestAreItsOwn() throws {
        let executor = FakeExecutor()
        let engine = try engine(executor)
        var named = request([5, 6, 7, 8, 9], 1)
        named.returnsNamedOutputs = true
        // The prefix cache knows the prompt, and must not shorten it.
        let other = request([5, 6, 7, 8, 9, 1, 2], 12)
        let outputs = try engine.generateBatch([other, named, other])
        #expect(outputs[1].namedOutputs["rows"]?.count == 5)
        #expect(outputs[0].namedOutputs.isEmpty && outputs[2].namedOutputs.isEmpty)
        #expect(outputs[0].tokens == executor.answer(other))
        #expect(outputs[2].tokens == executor.answer(other))
        #expect(try engine.generateBatch([other])[0].tokens == executor.answer(other))
        #expect(executor.violations.isEmpty)
    }
}
