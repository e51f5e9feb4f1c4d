// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

struct SchedulerTests {
    static let limits = StepLimits(maxTokens: 8, maxRequests: 4, maxLogitRows: 4, maxContext: 40)
    static let full = [FakeModel.group(blockSize: 4)]

    private func request(_ prompt: Int, _ answer: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = answer
        return GenerationRequest(prompt: (0..<prompt).map { Int32($0 % 40) }, settings: settings)
    }

    private func harness(
        limits: StepLimits = limits, groups: [KVGroup] = full, pages: Int = 40, depth: Int = 1,
        policy: SchedulingPolicy = .guaranteedNoEvict
    ) throws -> SchedulerHarness {
        try SchedulerHarness(
            limits: limits, groups: groups, pageCount: pages, depth: depth, policy: policy,
            reusesPrefixes: false)
    }

    @Test func mixesAnswersAndChunksOfPromptsInOneStep() throws {
        var h = try harness()
        try h.submit(1, request(3, 5))
        try h.submit(2, request(20, 2))
        while try h.schedule() { try h.complete() }
        // 3 + 5 of 20; then 1 + 7; then 1 + 7; then 1 + 1 twice.
        #expect(h.stepSizes.map(\.tokens) == [8, 8, 8, 2, 2])
        #expect(h.stepSizes.map(\.requests) == [2, 2, 2, 2, 2])
        #expect(h.finished.values.allSatisfy { $0 == .length })
    }

    @Test func aFinishedRequestLeavesAndAWaitingOneEnters() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 40))
        for (id, answer) in [(1, 2), (2, 6), (3, 2)] { try h.submit(id, request(2, answer)) }
        #expect(try h.schedule())
        #expect(h.scheduler.counts.waiting == 1)
        try h.complete()
        #expect(try h.schedule())
        try h.complete()
        #expect(h.finished[RequestID(1)] == .length)
        #expect(try h.schedule())
        #expect(h.scheduler.counts.waiting == 0)
        #expect(h.scheduler.counts.active == 2)
        try h.drain()
        #expect(h.scheduler.counts.freePages == 40)
    }

    @Test func admitsOnlyWhatItCanFinish() throws {
        var h = try harness(pages: 6)
        try h.submit(1, request(8, 9))  // 16 positions: 4 pages
        try h.submit(2, request(4, 9))  // 12 positions: 3 pages
        #expect(try h.schedule())
        #expect(h.scheduler.counts.active == 1)
        try h.drain()
        #expect(h.finished.count == 2)
        #expect(h.stepSizes.allSatisfy { $0.requests == 1 })
    }

    @Test func staticPolicyStartsABatchWhenTheLastHasEnded() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 40),
            policy: .staticSkipping)
        for (id, answer) in [(1, 1), (2, 4), (3, 1)] { try h.submit(id, request(2, answer)) }
        try h.drain()
        #expect(h.stepSizes.map(\.requests) == [2, 1, 1, 1, 1])
        #expect(h.paddingCount == 0)
    }

    @Test func staticPolicyComputesFinishedRowsUntilTheLastHasEnded() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 40),
            policy: .static)
        for (id, answer) in [(1, 1), (2, 4), (3, 1)] { try h.submit(id, request(2, answer)) }
        try h.drain()
        #expect(h.stepSizes.map(\.requests) == [2, 2, 2, 2, 1])
        #expect(h.paddingCount == 3)
        #expect(h.model.violations.isEmpty)
        for (id, answer) in [(1, 1), (2, 4), (3, 1)] {
            #expect(h.answers[RequestID(UInt64(id))] == h.model.answer(request(2, answer)))
        }
        #expect(h.scheduler.counts.freePages == 40)
    }

    /// No step may come that would end it: a finished row's window can be gone.
    @Test func aStaticBatchEndsWithItsLastRunningRequest() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 40),
            policy: .static)
        for (id, answer) in [(1, 1), (2, 4), (3, 1)] { try h.submit(id, request(2, answer)) }
        #expect(try h.schedule())
        try h.complete()
        #expect(h.finished.keys.map(\.rawValue) == [1])
        #expect(h.scheduler.counts.active == 2)
        h.cancel(RequestID(2))
        #expect(h.scheduler.counts.active == 0)
        try h.drain()
        #expect(h.finished[RequestID(3)] == .length)
    }

    /// Finished rows of a static batch are not computed on while all that it waits for is a reader.
    @Test func aStaticBatchThatWaitsForAReaderComputesNothing() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 8, maxRequests: 2, maxLogitRows: 2, maxContext: 40),
            policy: .static)
        for (id, answer) in [(1, 1), (2, 4)] { try h.submit(id, request(2, answer)) }
        #expect(try h.schedule())
        try h.complete()
        #expect(h.finished.keys.map(\.rawValue) == [1])
        h.scheduler.pause(RequestID(2))
        while h.inFlightCount > 0 { try h.complete() }
        #expect(try !h.schedule())
        h.scheduler.resume(RequestID(2))
        try h.drain()
        #expect(h.finished[RequestID(2)] == .length && h.paddingCount > 0)
    }

    @Test func overlapsStepsThroughTokensOfTheStepBefore() throws {
        var h = try harness(depth: 2)
        try h.submit(1, request(3, 6))
        #expect(try h.schedule())
        #expect(try h.schedule())
        #expect(try !h.schedule())
        #expect(h.inFlightCount == 2)
        try h.drain()
        #expect(h.sourceCount == 5)
        #expect(h.answers[RequestID(1)] == h.model.answer(request(3, 6)))
    }

    @Test func discardsTheRowInFlightOfARequestThatHasStopped() throws {
        var h = try harness(depth: 2)
        var asked = request(3, 6)
        asked.settings.stopTokens = [h.model.answer(asked)[0]]
        try h.submit(1, asked)
        #expect(try h.schedule())
        #expect(try h.schedule())
        try h.complete()
        #expect(h.finished[RequestID(1)] == .stopToken)
        #expect(h.scheduler.counts.draining == 1)
        #expect(h.scheduler.counts.freePages < 40)
        try h.complete()
        #expect(h.answers[RequestID(1)]?.count == 1)
        #expect(h.scheduler.counts.freePages == 40)
        #expect(h.scheduler.isIdle)
    }

    @Test func freesPagesThatLeftTheWindow() throws {
        let groups = [FakeModel.group(window: 6, blockSize: 2)]
        var h = try harness(groups: groups, pages: 40, depth: 2)
        try h.submit(1, request(20, 15))
        var fewestFree = 40
        while !h.scheduler.isIdle {
            if try !h.schedule() { try h.complete() }
            fewestFree = min(fewestFree, h.scheduler.counts.freePages)
            #expect(h.scheduler.checkInvariants() == nil)
        }
        // Window less one and two steps of 8 tokens: 21 positions, not 34.
        #expect(40 - fewestFree <= 12)
        #expect(h.answers[RequestID(1)] == h.model.answer(request(20, 15)))
        #expect(h.model.violations.isEmpty)
    }

    @Test func stepsSmallerThanTheBatchServeAllInTheEnd() throws {
        var h = try harness(
            limits: StepLimits(maxTokens: 3, maxRequests: 4, maxLogitRows: 2, maxContext: 40),
            depth: 2)
        for id in 1...4 { try h.submit(id, request(id + 3, 5)) }
        try h.drain()
        for id in 1...4 {
            #expect(h.answers[RequestID(UInt64(id))] == h.model.answer(request(id + 3, 5)))
        }
        #expect(h.stepSizes.allSatisfy { $0.tokens <= 3 })
    }

    @Test func zeroTokensComputeThePromptOnly() throws {
        var h = try harness()
        try h.submit(1, request(40, 0))
        try h.drain()
        #expect(h.finished[RequestID(1)] == .length)
        #expect(h.answers.isEmpty)
        #expect(h.stepSizes.map(\.tokens).reduce(0, +) == 40)
    }

    @Test func refusesAPromptLongerThanTheContext() throws {
        var h = try harness()
        let error = try #require(throws: MartletError.self) { try h.submit(1, request(40, 1)) }
        #expect(error.code == .limitExceeded)
        #expect(error.message.contains("40"))
        #expect(error.mend?.contains("--max-context") == true)
        try h.submit(2, request(39, 5))
        try h.drain()
        #expect(h.answers[RequestID(2)]?.count == 1)
    }

    @Test func refusesWhatTheCacheCanNeverHold() throws {
        var h = try harness(pages: 4)
        let error = try #require(throws: MartletError.self) { try h.submit(1, request(10, 8)) }
        #expect(error.code == .limitExceeded)
        #expect(error.message.contains("5 KV pages") && error.message.contains("only 4"))
        #expect(error.mend?.contains("--kv-cache-memory") == true)
        try h.submit(1, request(10, 7))
        #expect(throws: MartletError.self) { try h.submit(1, request(1, 1)) }
    }

    @Test func refusesWhatItCannotServe() {
        let cross = FakeModel.group(blockSize: 4, kind: .crossAttention)
        #expect(throws: MartletError.self) {
            try RequestStreams(
                groups: [cross], uses: [[KVGroupUse(group: 0, isWritten: false)]], entryPoint: 0)
        }
        #expect(throws: MartletError.self) {
            try harness(
                limits: StepLimits(maxTokens: 0, maxRequests: 1, maxLogitRows: 1, maxContext: 9))
        }
    }

    /// Sources: none without an encoder, one with it, and no longer than a step.
    @Test(arguments: [(false, 1), (true, 0), (true, 6)])
    func sourcesMustFit(hasEncoder: Bool, count: Int) throws {
        let own = [FakeModel.group(blockSize: 4)]
        var h = try SchedulerHarness(
            limits: StepLimits(maxTokens: 5, maxRequests: 3, maxLogitRows: 3, maxContext: 30),
            streams: hasEncoder
                ? FakeModel.encoderDecoder(own) : RequestStreams(groups: own),
            pageCount: 40, options: SchedulerOptions())
        var request = GenerationRequest(prompt: [1, 2])
        request.source = [Int32](repeating: 3, count: count)
        let error = #expect(throws: MartletError.self) { try h.submit(1, request) }
        #expect(error?.message.contains("source tokens") == true)
    }

    /// Sources come first, each whole and several in a step; what only the encoder reads goes at once.
    @Test func sourcesHaveStepsOfTheirOwn() throws {
        var h = try SchedulerHarness(
            limits: StepLimits(maxTokens: 10, maxRequests: 4, maxLogitRows: 4, maxContext: 30),
            streams: FakeModel.encoderDecoder([FakeModel.group(blockSize: 4)]), pageCount: 40,
            options: SchedulerOptions())
        for (id, length) in [6, 4, 7].enumerated() {
            var request = GenerationRequest(prompt: [1, 2, Int32(id)])
            request.settings.maxTokens = 3
            request.source = (0..<length).map { Int32($0 + id) }
            try h.submit(id + 1, request)
        }
        #expect(try h.schedule())
        #expect(h.stepSizes[0] == (2, 10))
        // The prompts wait for what is in flight; the third source does not.
        #expect(try h.schedule())
        #expect(h.stepSizes[1] == (1, 7))
        try h.complete()
        // 6 and 4 tokens in blocks of 5, the encoder's own blocks of 3 are free again; 7 in both.
        #expect(h.scheduler.counts.freePages == 40 - 3 - 2 - 3)
        try h.drain()
        for (id, request) in h.requests { #expect(h.answers[id] == h.model.answer(request)) }
        #expect(h.scheduler.counts.freePages == 40)
        #expect(h.model.violations.isEmpty)
    }

    @Test func completesInOrderOnly() throws {
        var h = try harness(depth: 2)
        try h.submit(1, request(3, 6))
        var steps = [ScheduledStep(), ScheduledStep()]
        let begun = steps.indices.map { h.scheduler.schedule(into: &steps[$0]) }
        #expect(begun == [true, true])
        var events: [SchedulerEvent] = []
        #expect(throws: MartletError.self) {
            try h.scheduler.complete(steps[1], tokens: [1], status: [.ok], events: &events)
        }
        #expect(throws: MartletError.self) {
            try h.scheduler.complete(steps[0], tokens: [], status: [], events: &events)
        }
    }
}
