// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

struct PrefixCacheTests {
    private func harness(
        pages: Int = 60, groups: [KVGroup] = [FakeModel.group(blockSize: 4)], depth: Int = 2,
        policy: SchedulingPolicy = .guaranteedNoEvict, reusesPrefixes: Bool = true
    ) throws -> SchedulerHarness {
        try SchedulerHarness(
            limits: StepLimits(maxTokens: 16, maxRequests: 8, maxLogitRows: 8, maxContext: 80),
            groups: groups, pageCount: pages, depth: depth, policy: policy,
            reusesPrefixes: reusesPrefixes)
    }

    private func request(_ prompt: [Int32], _ answer: Int) -> GenerationRequest {
        var settings = SamplingSettings()
        settings.maxTokens = answer
        return GenerationRequest(prompt: prompt, settings: settings)
    }

    private func tokens(_ count: Int, _ seed: Int) -> [Int32] {
        var random = TestRandom(seed)
        return (0..<count).map { _ in Int32(random.below(48)) }
    }

    private func computed(_ h: SchedulerHarness) -> Int { h.stepSizes.reduce(0) { $0 + $1.tokens } }

    @Test func aSecondTurnComputesOnlyItsNewTokens() throws {
        var h = try harness()
        let first = tokens(10, 1)
        try h.submit(1, request(first, 9))
        try h.drain()
        #expect(computed(h) == 18)
        let answer = try #require(h.answers[RequestID(1)])
        // The answer's last token was never computed, so the second turn has it and three more to do.
        let second = request(first + answer + tokens(3, 2), 1)
        try h.submit(2, second)
        try h.drain()
        #expect(computed(h) == 18 + 4)
        #expect(h.scheduler.reusedTokenCount == 18)
        #expect(h.answers[RequestID(2)] == h.model.answer(second))
        #expect(h.scheduler.counts.freePages == 60)
    }

    @Test func requestsAtOnceComputeACommonBeginningOnce() throws {
        var h = try harness()
        let stem = tokens(40, 3)
        let all = (0..<8).map { request(stem + tokens(3, 10 + $0), 4) }
        for (id, request) in all.enumerated() { try h.submit(id + 1, request) }
        try h.drain()
        #expect(computed(h) == 40 + 8 * (3 + 3))
        for (id, request) in all.enumerated() {
            #expect(h.answers[RequestID(UInt64(id + 1))] == h.model.answer(request))
        }
    }

    @Test func theEndOfTheFirstOfThemLetsTheOthersGoOn() throws {
        var h = try harness()
        let stem = tokens(60, 3)
        for id in 1...3 { try h.submit(id, request(stem + tokens(2, id), 2)) }
        #expect(try h.schedule())
        #expect(h.scheduler.counts.active == 1)
        h.cancel(RequestID(1))
        try h.drain()
        #expect(h.answers[RequestID(2)]?.count == 2)
        #expect(h.answers[RequestID(3)]?.count == 2)
        #expect(h.scheduler.counts.freePages == 60)
    }

    @Test func saltsAndLogitsOfThePromptKeepToThemselves() throws {
        var h = try harness()
        let prompt = tokens(30, 5)
        try h.submit(1, request(prompt, 2))
        try h.drain()
        var salted = request(prompt, 2)
        salted.cacheSalt = "a"
        try h.submit(2, salted)
        var logits = request(prompt, 2)
        logits.settings.returnContextLogits = true
        try h.submit(3, logits)
        try h.drain()
        #expect(h.scheduler.reusedTokenCount == 0)
        salted.prompt.append(1)
        try h.submit(4, salted)
        try h.drain()
        #expect(h.scheduler.reusedTokenCount == 30)
        // What such a request computes spares others.
        logits.prompt = tokens(30, 6)
        try h.submit(5, logits)
        try h.drain()
        try h.submit(6, request(tokens(30, 6) + [1], 2))
        try h.drain()
        #expect(h.scheduler.reusedTokenCount == 60)
    }

    @Test func theLeastRecentlyUsedBlocksGoFirst() throws {
        var h = try harness(pages: 12)
        let prompts = (0..<3).map { tokens(16, 20 + $0) }
        for (id, prompt) in prompts[..<2].enumerated() {
            try h.submit(id, request(prompt, 1))
            try h.drain()
        }
        // The first is used once more, so the third takes the second's pages, from its end on.
        try h.submit(10, request(prompts[0], 1))
        try h.drain()
        try h.submit(11, request(prompts[2] + tokens(9, 30), 1))
        try h.drain()
        let before = h.scheduler.reusedTokenCount
        try h.submit(12, request(prompts[0], 1))
        try h.drain()
        #expect(h.scheduler.reusedTokenCount == before + 15)
        try h.submit(13, request(prompts[1], 1))
        try h.drain()
        #expect(h.scheduler.reusedTokenCount < before + 15 + 12)
        #expect(h.scheduler.checkInvariants() == nil)
    }

    @Test func aWindowNeedsOnlyItsOwnPages() throws {
        let groups = [FakeModel.group(blockSize: 4), FakeModel.group(window: 6, blockSize: 4)]
        var h = try harness(groups: groups)
        let prompt = tokens(33, 7)
        try h.submit(1, request(prompt, 2))
        try h.drain()
        let next = request(prompt + tokens(4, 8), 3)
        try h.submit(2, next)
        try h.drain()
        #expect(h.scheduler.reusedTokenCount >= 32)
        #expect(h.answers[RequestID(2)] == h.model.answer(next))
    }

    /// Blocks that left every window are known as long as they lead to one that is there.
    @Test(arguments: [(4, 8, 16), (16, 64, 16), (16, 64, 512)])
    func whatLeadsToNoPageIsForgotten(block: Int, window: Int, chunk: Int) throws {
        let limits = StepLimits(
            maxTokens: chunk, maxRequests: 4, maxLogitRows: 4, maxContext: 520)
        var h = try SchedulerHarness(
            limits: limits, groups: [FakeModel.group(window: window, blockSize: block)],
            pageCount: 300)
        func prompt(_ id: Int) -> [Int32] {
            var random = TestRandom(id)
            return (0..<400).map { _ in Int32(random.below(48)) }
        }
        var counts: [Int] = []
        for id in 1...240 {
            try h.submit(id, request(prompt(id), 3))
            try h.drain()
            if id % 60 == 0 { counts.append(h.scheduler.prefixes.nodeCount) }
            #expect(h.scheduler.checkInvariants() == nil)
        }
        #expect(counts[3] <= counts[0] * 5 / 4, "\(counts)")
        // What goes on from there finds it, though most of its blocks have no page.
        let before = h.scheduler.reusedTokenCount
        try h.submit(241, request(prompt(240) + prompt(1).prefix(40), 3))
        try h.drain()
        #expect(h.scheduler.reusedTokenCount - before == 400)
    }

    @Test func preemptedRequestsAnswerAsIfAlone() throws {
        var random = TestRandom(9)
        for depth in [1, 2] {
            var h = try harness(pages: 10, depth: depth, policy: .maxUtilization)
            for id in 1...6 {
                var request = random.request(vocabulary: 48, prompt: 12, answer: 24)
                request.settings.maxTokens = 24
                request.settings.stopTokens = []
                request.settings.minTokens = 0
                try h.submit(id, request)
            }
            try h.drain()
            #expect(h.scheduler.preemptionCount > 0)
            for (id, request) in h.requests {
                #expect(h.answers[id] == h.model.answer(request))
            }
            #expect(h.scheduler.counts.freePages == 10)
        }
    }
}
