// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

/// Random sequences of submit, schedule, late completion and cancel, invariants checked after each.
struct SchedulerRandomTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var seed: Int
        var groups: [KVGroup]
        var pages: Int
        var limits: StepLimits
        var depth: Int
        var policy = SchedulingPolicy.guaranteedNoEvict
        /// Whether prompts begin like others, and what is known of them is used.
        var reusesPrefixes = false
        var testDescription: String {
            "seed \(seed), \(groups.count) groups, depth \(depth), \(policy)"
                + (reusesPrefixes ? ", prefixes" : "")
        }
    }

    static let cases: [Case] = {
        let full = FakeModel.group(blockSize: 4)
        let window = FakeModel.group(window: 5, blockSize: 2)
        let wide = FakeModel.group(window: 9, blockSize: 3)
        let small = StepLimits(maxTokens: 5, maxRequests: 3, maxLogitRows: 2, maxContext: 30)
        let large = StepLimits(maxTokens: 16, maxRequests: 5, maxLogitRows: 6, maxContext: 40)
        let odd = StepLimits(maxTokens: 3, maxRequests: 6, maxLogitRows: 4, maxContext: 26)
        var cases = [
            Case(seed: 1, groups: [full], pages: 30, limits: small, depth: 1),
            Case(seed: 2, groups: [full], pages: 30, limits: large, depth: 2),
            Case(seed: 3, groups: [window], pages: 30, limits: odd, depth: 2),
            Case(seed: 4, groups: [full, window], pages: 50, limits: large, depth: 2),
            Case(seed: 5, groups: [window, full, wide], pages: 60, limits: small, depth: 2),
            Case(seed: 6, groups: [full, wide], pages: 40, limits: odd, depth: 3),
            Case(seed: 7, groups: [wide, window], pages: 60, limits: large, depth: 3),
            Case(seed: 8, groups: [full], pages: 40, limits: large, depth: 2, policy: .static),
        ]
        let cramped = StepLimits(maxTokens: 12, maxRequests: 6, maxLogitRows: 6, maxContext: 40)
        let pools: [(groups: [KVGroup], pages: Int, limits: StepLimits)] = [
            ([full], 30, small), ([full], 14, cramped),
            ([FakeModel.group(blockSize: 3)], 24, large),
            ([window], 30, odd), ([full, window], 40, large), ([full, full], 30, cramped),
            ([window, full, wide], 60, small),
        ]
        for (index, pool) in pools.enumerated() {
            for (depth, policy) in [
                (1, SchedulingPolicy.guaranteedNoEvict), (2, .guaranteedNoEvict),
                (1, .maxUtilization), (2, .maxUtilization), (2, .static),
            ] {
                for reuses in [false, true] where reuses || policy == .maxUtilization {
                    cases.append(
                        Case(
                            seed: 100 + 10 * index + depth, groups: pool.groups, pages: pool.pages,
                            limits: pool.limits, depth: depth, policy: policy,
                            reusesPrefixes: reuses))
                }
            }
        }
        return cases
    }()

    @Test(arguments: cases) func keepsInvariantsAndAnswers(_ c: Case) throws {
        var random = TestRandom(c.seed)
        var h = try SchedulerHarness(
            limits: c.limits, groups: c.groups, pageCount: c.pages, depth: c.depth,
            policy: c.policy, reusesPrefixes: c.reusesPrefixes)
        let stems = (0..<4).map { _ in (0..<24).map { _ in Int32(random.below(48)) } }
        var id = 0
        for operation in 0..<26_000 {
            switch random.below(10) {
            case 0 where h.scheduler.counts.waiting < 5:
                id += 1
                var request = random.request(vocabulary: 48, prompt: 24, answer: 12)
                if c.reusesPrefixes {
                    let stem = stems[random.below(4)].prefix(random.below(24))
                    request.prompt = Array((stem + request.prompt).prefix(24))
                    if random.below(8) == 0 { request.cacheSalt = "other" }
                }
                try? h.submit(id, request)
            case 1 where random.below(4) == 0:
                h.cancel(RequestID(UInt64(max(id - random.below(8), 0))))
            case 0...5: _ = try h.schedule()
            default: try h.complete()
            }
            let broken =
                h.scheduler.checkInvariants() ?? h.checkPagesInFlight() ?? h.model.violations.first
            if let broken {
                Issue.record("seed \(c.seed), operation \(operation): \(broken)")
                return
            }
        }
        try h.drain()
        #expect(h.scheduler.isIdle)
        #expect(h.scheduler.counts.freePages == c.pages)
        #expect(h.finished.count == h.requests.count)
        #expect(h.requests.count > 300)
        #expect(c.depth == 1 || h.sourceCount > 300)
        #expect(Set(h.finished.values).isSuperset(of: [.length, .stopToken, .cancelled]))
        var wrong = 0
        for (name, request) in h.requests {
            let expected = h.model.answer(request)
            let got = h.answers[name] ?? []
            let isRight =
                h.finished[name] == .cancelled ? expected.starts(with: got) : got == expected
            if !isRight { wrong += 1 }
        }
        #expect(wrong == 0, "seed \(c.seed)")
        #expect(c.reusesPrefixes == (h.scheduler.reusedTokenCount > 300))
        if c.policy != .maxUtilization { #expect(h.scheduler.preemptionCount == 0) }
    }
}
