// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Random sequences of operations, invariants checked after each, failures shortened.
///
/// `MARTLET_SCHEDULER_OPERATIONS=10000000` runs as many instead of the short form.
struct SchedulerRandomTests {
    static let cases: [SchedulerCase] = {
        let full = FakeModel.group(blockSize: 4)
        let window = FakeModel.group(window: 5, blockSize: 2)
        let wide = FakeModel.group(window: 9, blockSize: 3)
        let small = StepLimits(maxTokens: 5, maxRequests: 3, maxLogitRows: 2, maxContext: 30)
        let large = StepLimits(maxTokens: 16, maxRequests: 5, maxLogitRows: 6, maxContext: 40)
        let odd = StepLimits(maxTokens: 3, maxRequests: 6, maxLogitRows: 4, maxContext: 26)
        let cramped = StepLimits(maxTokens: 12, maxRequests: 6, maxLogitRows: 6, maxContext: 40)
        let groups: [(groups: [KVGroup], pages: Int, limits: StepLimits)] = [
            ([full], 30, small), ([full], 14, cramped),
            ([FakeModel.group(blockSize: 3)], 24, large),
            ([window], 30, odd), ([full, window], 40, large), ([full, full], 30, cramped),
            ([window, full, wide], 60, small), ([wide, window], 60, large),
        ]
        var pools = groups.map {
            (streams: RequestStreams(groups: $0.groups), pages: $0.pages, limits: $0.limits)
        }
        for (own, pages, limits) in [([full], 24, cramped), ([window, full], 40, large)] {
            if let streams = try? FakeModel.encoderDecoder(own) {
                pools.append((streams, pages, limits))
            }
        }
        var cases: [SchedulerCase] = []
        for (index, pool) in pools.enumerated() {
            for (place, policy) in SchedulingPolicy.allCases.enumerated() {
                for (depth, reuses, mode) in [
                    (1, true, PreemptionMode.recompute), (2, true, .automatic), (2, false, .swap),
                    (3, true, .swap),
                ] {
                    var options = SchedulerOptions()
                    options.policy = policy
                    options.stepsInFlight = depth
                    options.reusesPrefixes = reuses
                    options.preemption = mode
                    options.preemptionCost.pageSeconds = 1.5e-4
                    if policy == .maxUtilization, mode != .recompute {
                        options.hostPageCount = pool.pages / 2
                    }
                    cases.append(
                        SchedulerCase(
                            seed: 1000 + 100 * index + 10 * place + depth, streams: pool.streams,
                            pages: pool.pages, limits: pool.limits, options: options,
                            beams: !policy.rawValue.hasPrefix("static")
                                && pool.limits.maxLogitRows > 2))
                }
            }
        }
        return cases
    }()

    static let totalCount = getenv("MARTLET_SCHEDULER_OPERATIONS").flatMap {
        Int(String(cString: $0))
    }
    /// Operations of one sequence.
    static let length = 10_000
    /// Sequences of each case.
    static let rounds = max(
        ((totalCount ?? 1) + length * cases.count - 1) / (length * cases.count), 1)

    @Test(arguments: cases) func keepsInvariantsAndAnswers(_ c: SchedulerCase) throws {
        var counts = (requests: 0, sources: 0, reused: 0, preempted: 0, swapped: 0, padding: 0)
        var beams = 0
        var ends: Set<FinishReason> = []
        for round in 0..<Self.rounds {
            var c = c
            c.seed += round << 20
            let operations = SchedulerOperation.sequence(seed: c.seed, count: Self.length)
            var run = try SchedulerRun(c)
            if let failure = run.fail(operations) {
                let short = Self.shortest(c, Array(operations.prefix(failure.count)))
                Issue.record("\(c): \(failure.what); shortest: \(short.what): \(short.operations)")
                return
            }
            let h = run.harness
            counts.requests += h.requests.count
            counts.sources += h.sourceCount
            counts.reused += h.scheduler.reusedTokenCount
            counts.preempted += h.scheduler.preemptionCount
            counts.swapped += h.scheduler.swapCount
            counts.padding += h.paddingCount
            beams += h.beamSteps.count
            ends.formUnion(h.finished.values)
        }
        #expect(counts.requests > 100)
        #expect(c.options.stepsInFlight == 1 || counts.sources > 100)
        #expect(ends.isSuperset(of: [.length, .stopToken, .cancelled]))
        // What a prompt's keys are depends on the source before it.
        #expect(
            (c.options.reusesPrefixes && c.streams.source == nil) == (counts.reused > 20))
        if c.options.policy != .maxUtilization { #expect(counts.preempted == 0) }
        if c.options.hostPageCount == 0 { #expect(counts.swapped == 0) }
        #expect((c.options.policy == .static) == (counts.padding > 0))
        #expect(c.beams == (beams > 5))
    }

    /// Over all cases the rare things happen.
    @Test func casesReachPreemptionAndSwapping() throws {
        var preempted = 0, aside = 0, swapped = 0, wait = 0
        for c in Self.cases where c.options.policy == .maxUtilization {
            var run = try SchedulerRun(c)
            #expect(run.fail(SchedulerOperation.sequence(seed: c.seed, count: 3000)) == nil)
            preempted += run.harness.scheduler.preemptionCount
            swapped += run.harness.scheduler.swapCount
            aside += run.harness.scheduler.asideCount
            wait = max(wait, run.harness.longestWait)
        }
        #expect(preempted > 100)
        #expect(swapped > 50)
        // Those whose readers are behind are swapped too.
        #expect(preempted + aside > swapped)
        #expect(wait > 3)
    }

    /// A failure comes back as a few operations, none of which can be left out.
    @Test func failuresAreShortened() throws {
        let c = Self.cases[0]
        let planted: (SchedulerHarness) -> String? = { h in
            h.scheduler.counts.active > 1 && h.inFlightCount == 1 ? "two run" : nil
        }
        func fails(_ operations: [SchedulerOperation]) -> Bool {
            var run = try? SchedulerRun(c)
            return run?.fail(operations, also: planted) != nil
        }
        let operations = SchedulerOperation.sequence(seed: 3, count: 2000)
        #expect(fails(operations))
        let short = SchedulerRun.shrink(operations, fails)
        #expect(fails(short))
        #expect(short.count <= 4, "\(short)")
        for index in short.indices {
            var shorter = short
            shorter.remove(at: index)
            #expect(!fails(shorter))
        }
    }

    private static func shortest(
        _ c: SchedulerCase, _ operations: [SchedulerOperation]
    ) -> (operations: [SchedulerOperation], what: String) {
        func failure(_ operations: [SchedulerOperation]) -> String? {
            var run = try? SchedulerRun(c)
            return run?.fail(operations)?.what
        }
        let short = SchedulerRun.shrink(operations) { failure($0) != nil }
        return (short, failure(short) ?? "nothing")
    }
}
