// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

struct SchedulerPolicyTests {
    private func request(_ prompt: Int, _ answer: Int, priority: Int = 0) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = answer
        var request = GenerationRequest(
            prompt: (0..<prompt).map { Int32($0 % 40) }, settings: settings)
        request.priority = priority
        return request
    }

    private func harness(
        rows: Int = 4, tokens: Int = 16, context: Int = 60, pages: Int = 100,
        _ set: (inout SchedulerOptions) -> Void = { _ in }
    ) throws -> SchedulerHarness {
        var options = SchedulerOptions()
        options.reusesPrefixes = false
        set(&options)
        return try SchedulerHarness(
            limits: StepLimits(
                maxTokens: tokens, maxRequests: rows, maxLogitRows: rows, maxContext: context),
            streams: RequestStreams(groups: [FakeModel.group(blockSize: 4)]), pageCount: pages,
            options: options)
    }

    /// Two requests that need 10 pages each share 14.
    private func crowded(_ set: (inout SchedulerOptions) -> Void) throws -> SchedulerHarness {
        var h = try harness(pages: 14) {
            $0.policy = .maxUtilization
            set(&$0)
        }
        for id in 1...2 { try h.submit(id, request(10, 30)) }
        try h.drain()
        for id in 1...2 {
            #expect(h.answers[RequestID(UInt64(id))] == h.model.answer(request(10, 30)))
        }
        #expect(h.model.violations.isEmpty)
        #expect(h.scheduler.preemptionCount > 0)
        #expect(h.scheduler.counts.freePages == 14)
        #expect(h.scheduler.counts.freeHostPages == h.scheduler.options.hostPageCount)
        return h
    }

    private func computed(_ h: SchedulerHarness) -> Int { h.stepSizes.reduce(0) { $0 + $1.tokens } }

    @Test(arguments: [1, 2]) func recomputesOrSwapsAsTold(depth: Int) throws {
        let recomputed = try crowded {
            $0.preemption = .recompute
            $0.hostPageCount = 20
            $0.stepsInFlight = depth
        }
        #expect(recomputed.scheduler.swapCount == 0)
        let swapped = try crowded {
            $0.preemption = .swap
            $0.hostPageCount = 20
            $0.stepsInFlight = depth
        }
        #expect(swapped.scheduler.swapCount == swapped.scheduler.preemptionCount)
        // Nothing is computed twice: each prompt, and each answer but its last token.
        #expect(computed(swapped) == 2 * (10 + 29))
        #expect(computed(recomputed) > computed(swapped))
    }

    @Test func takesTheCheaperWay() throws {
        let dearPages = try crowded {
            $0.hostPageCount = 20
            $0.preemptionCost = PreemptionCost(tokenSeconds: 1e-4, pageSeconds: 1e-3)
        }
        #expect(dearPages.scheduler.swapCount == 0)
        let cheapPages = try crowded {
            $0.hostPageCount = 20
            $0.preemptionCost = PreemptionCost(tokenSeconds: 1e-4, pageSeconds: 1e-5)
        }
        #expect(cheapPages.scheduler.swapCount == cheapPages.scheduler.preemptionCount)
        #expect(PreemptionCost(tokenSeconds: 1, pageSeconds: 2).prefersSwap(pages: 2, tokens: 9))
        #expect(!PreemptionCost(tokenSeconds: 1, pageSeconds: 2).prefersSwap(pages: 2, tokens: 8))
    }

    @Test func recomputesWhereTheHostHasNoRoom() throws {
        let h = try crowded {
            $0.preemption = .swap
            $0.hostPageCount = 2
        }
        #expect(h.scheduler.swapCount == 0)
    }

    @Test func aCancelledRequestLeavesNothingOnTheHost() throws {
        var h = try harness(pages: 14) {
            $0.policy = .maxUtilization
            $0.preemption = .swap
            $0.hostPageCount = 20
        }
        for id in 1...2 { try h.submit(id, request(10, 30)) }
        while h.scheduler.swapCount == 0 {
            if try !h.schedule() { try h.complete() }
        }
        #expect(h.scheduler.counts.freeHostPages < 20)
        h.cancel(RequestID(2))
        #expect(h.scheduler.counts.freeHostPages == 20)
        try h.drain()
        #expect(h.answers[RequestID(1)] == h.model.answer(request(10, 30)))
        #expect(h.scheduler.counts.freePages == 14)
    }

    @Test func higherPrioritiesStartFirst() throws {
        var h = try harness(rows: 1)
        for (id, priority) in [(1, 0), (2, 0), (3, 5), (4, -1), (5, 5)] {
            try h.submit(id, request(2, 3, priority: priority))
        }
        var order: [RequestID] = []
        while try h.schedule() {
            try h.complete()
            for id in h.finished.keys where !order.contains(id) { order.append(id) }
        }
        #expect(order.map(\.rawValue) == [3, 5, 1, 2, 4])
    }

    @Test func lowerPrioritiesArePausedFirst() throws {
        var h = try harness(pages: 14) { $0.policy = .maxUtilization }
        try h.submit(1, request(10, 30, priority: 0))
        #expect(try h.schedule())
        try h.complete()
        try h.submit(2, request(10, 30, priority: 1))
        try h.drain()
        #expect(h.scheduler.preemptionCount > 0)
        // The older one of less weight gave way.
        let ends = h.finishOrder.map(\.rawValue)
        #expect(ends == [2, 1])
    }

    @Test func aFullQueueRefuses() throws {
        var h = try harness(rows: 1) { $0.queueLimit = 2 }
        try h.submit(1, request(2, 3))
        #expect(try h.schedule())
        try h.submit(2, request(2, 3))
        try h.submit(3, request(2, 3))
        let error = try #require(throws: MartletError.self) { try h.submit(4, request(2, 3)) }
        #expect(error.code == .limitExceeded)
        #expect(error.message.contains("2 requests wait"))
        try h.drain()
        try h.submit(4, request(2, 3))
        try h.drain()
        #expect(h.finished.count == 4)
    }

    /// Long prompts and answers at once, as many as fit: nobody waits longer than the bound, and
    /// a bound far from what happens would say nothing.
    @Test(arguments: [4, 7, 16]) func everyRequestAdvancesWithinTheBound(tokens: Int) throws {
        var h = try harness(rows: 4, tokens: tokens, context: 60)
        for id in 1...40 { try h.submit(id, request(56, 4)) }
        try h.drain()
        let bound = h.scheduler.fairnessBound()
        #expect(bound == (4 * 60 + tokens - 4) / (tokens - 3) + 2)
        #expect(h.tooLate == nil)
        #expect(h.longestWait * 5 > bound)
        #expect(h.finished.count == 40)
    }

    /// A search that lacks a page gets another's: nobody is let off as long as any of its beams waits.
    @Test func searchesAreNotStarvedOfPages() throws {
        let limits = StepLimits(maxTokens: 512, maxRequests: 4, maxLogitRows: 4, maxContext: 400)
        var h = try SchedulerHarness(
            limits: limits, groups: [FakeModel.group(blockSize: 32)], pageCount: 10, depth: 2,
            policy: .maxUtilization, reusesPrefixes: false)
        for (id, (prompt, answer, beams)) in [(30, 120, 1), (38, 120, 1), (31, 80, 2)].enumerated()
        {
            var request = request(prompt, answer)
            request.settings.beamCount = beams
            try h.submit(id + 1, request)
        }
        try h.drain()
        #expect(h.scheduler.preemptionCount > 0 && h.beamSteps.count > 0)
        #expect(h.longestWait <= 8)
        #expect(h.scheduler.counts.freePages == 10)
    }

    /// A prompt that has started goes on, though others of higher priority never end.
    @Test func noPriorityStarvesAPromptThatHasStarted() throws {
        var h = try harness(rows: 4, tokens: 8, context: 60)
        try h.submit(1, request(56, 4))
        #expect(try h.schedule())
        var id = 2
        while h.finished[RequestID(1)] == nil, id < 400 {
            if h.scheduler.counts.waiting < 4 {
                try h.submit(id, request(56, 4, priority: 5))
                id += 1
            }
            if try !h.schedule() { try h.complete() }
        }
        #expect(h.finished[RequestID(1)] == .length)
        #expect(h.tooLate == nil)
        #expect(h.answers[RequestID(1)] == h.model.answer(request(56, 4)))
    }

    /// Who gave up its pages comes back within a bound too.
    @Test(arguments: [PreemptionMode.recompute, .swap])
    func pausedRequestsReturnWithinTheBound(mode: PreemptionMode) throws {
        var h = try harness(pages: 16) {
            $0.policy = .maxUtilization
            $0.preemption = mode
            $0.hostPageCount = 40
        }
        for id in 1...40 { try h.submit(id, request(10, 30)) }
        try h.drain()
        let bound = h.scheduler.fairnessBound()
        #expect(h.tooLate == nil)
        #expect(h.longestAbsence > bound)
        #expect(h.longestAbsence <= h.scheduler.returnBound(bound))
        #expect(h.finished.count == 40)
    }

    @Test(arguments: [SchedulingPolicy.guaranteedNoEvict, .maxUtilization])
    func aPausedRequestGivesItsRowToOthers(policy: SchedulingPolicy) throws {
        var h = try harness(rows: 1) { $0.policy = policy }
        try h.submit(1, request(4, 12))
        #expect(try h.schedule())
        try h.complete()
        h.scheduler.pause(RequestID(1))
        try h.submit(2, request(5, 6))
        for _ in 0..<40 where h.finished.isEmpty {
            if try !h.schedule() { try h.complete() }
            #expect(h.scheduler.checkInvariants() == nil)
        }
        #expect(h.answers[RequestID(2)] == h.model.answer(request(5, 6)))
        #expect(h.scheduler.asideCount == 1 && h.scheduler.preemptionCount == 0)
        h.scheduler.resume(RequestID(1))
        try h.drain()
        #expect(h.answers[RequestID(1)] == h.model.answer(request(4, 12)))
        #expect(h.scheduler.counts.freePages == 100)
    }

    @Test func answersGrowInEachStepWhilePromptsAreComputed() throws {
        var h = try harness(rows: 4, tokens: 8, context: 200, pages: 300) { $0.stepsInFlight = 1 }
        try h.submit(1, request(2, 60))
        #expect(try h.schedule())
        try h.complete()
        for id in 2...8 { try h.submit(id, request(150, 2)) }
        for count in 2...40 {
            #expect(try h.schedule())
            try h.complete()
            #expect(h.answers[RequestID(1)]?.count == count)
        }
    }

    @Test func aPausedRequestWaitsAlone() throws {
        var h = try harness()
        for id in 1...3 { try h.submit(id, request(4, 12)) }
        #expect(try h.schedule())
        h.scheduler.pause(RequestID(2))
        for _ in 0..<40 where try !h.schedule() { try h.complete() }
        #expect(h.finished.keys.map(\.rawValue).sorted() == [1, 3])
        #expect(h.answers[RequestID(2)]?.count == 1)
        h.scheduler.resume(RequestID(2))
        try h.drain()
        #expect(h.answers[RequestID(2)] == h.model.answer(request(4, 12)))
    }

    @Test func aPausedRequestGivesItsPagesToOthers() throws {
        var h = try harness(pages: 14) { $0.policy = .maxUtilization }
        try h.submit(1, request(30, 20))
        while h.answers.isEmpty { if try !h.schedule() { try h.complete() } }
        h.scheduler.pause(RequestID(1))
        try h.submit(2, request(10, 30))
        for _ in 0..<200 where h.finished.isEmpty {
            if try !h.schedule() { try h.complete() }
        }
        #expect(h.finished[RequestID(2)] == .length)
        #expect(h.scheduler.preemptionCount == 1)
        try h.drain()
        #expect(h.answers[RequestID(1)] == h.model.answer(request(30, 20)))
    }

    @Test func namedOutputsComeFromAStepOfTheirOwn() throws {
        var h = try harness()
        try h.submit(1, request(4, 10))
        #expect(try h.schedule())
        var named = request(12, 1)
        named.returnsNamedOutputs = true
        try h.submit(2, named)
        try h.drain()
        #expect(h.stepSizes.contains { $0.requests == 1 && $0.tokens == 12 })
        #expect(h.answers[RequestID(1)] == h.model.answer(request(4, 10)))
        #expect(h.answers[RequestID(2)] == h.model.answer(named))
        named.prompt = (0..<17).map { Int32($0) }
        let error = try #require(throws: MartletError.self) { try h.submit(3, named) }
        #expect(error.message.contains("17") && error.message.contains("16"))
    }
}
