// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletRuntime

/// What random tests do to a scheduler: values, so that a failing sequence can be shortened.
enum SchedulerOperation: Hashable, Sendable {
    /// A new request, made from the seed.
    case submit(seed: Int)
    case schedule
    case complete
    /// As `complete`, the so manieth row drawn being no numbers.
    case completeBroken(row: Int)
    /// The request submitted so many before the newest.
    case cancel(back: Int)
    /// The same, its numbers being none.
    case fail(back: Int)
    case pause(back: Int)
    /// All that are paused.
    case resume
    /// Ended requests keep their pages from now on, or give them back.
    case settle(later: Bool)
    /// Answers that want a page in the next step take it now.
    case takePagesAhead

    static func random(_ random: inout TestRandom) -> SchedulerOperation {
        switch random.below(44) {
        case 0..<4: return .submit(seed: Int(truncatingIfNeeded: random.next() >> 33))
        case 4: return .cancel(back: random.below(8))
        case 5: return .pause(back: random.below(8))
        case 6..<8: return .resume
        case 8..<24: return .schedule
        case 39: return .takePagesAhead
        case 40: return .completeBroken(row: random.below(4))
        case 41: return random.below(4) == 0 ? .fail(back: random.below(8)) : .complete
        case 42: return .settle(later: true)
        case 43: return .settle(later: false)
        default: return .complete
        }
    }

    static func sequence(seed: Int, count: Int) -> [SchedulerOperation] {
        var random = TestRandom(seed)
        return (0..<count).map { _ in .random(&random) }
    }
}

/// How a random test is set up.
struct SchedulerCase: Sendable, CustomStringConvertible {
    var seed: Int
    var streams: RequestStreams
    var pages: Int
    var limits: StepLimits
    var options = SchedulerOptions()
    var beams = false

    var description: String {
        "seed \(seed), \(streams.groups.count) groups, depth \(options.stepsInFlight), \(options.policy)"
            + (options.reusesPrefixes ? ", prefixes" : "")
            + (options.hostPageCount > 0 ? ", \(options.preemption)" : "")
            + (beams ? ", beams" : "") + (streams.source != nil ? ", sources" : "")
    }

    /// A request with settings out of the ordinary, beginning like others.
    func request(seed: Int) -> GenerationRequest {
        var random = TestRandom(seed)
        var request = random.request(vocabulary: 48, prompt: 24, answer: 12)
        if options.reusesPrefixes {
            var stems = TestRandom(self.seed)
            let all = (0..<4).map { _ in (0..<24).map { _ in Int32(stems.below(48)) } }
            let stem = all[random.below(4)].prefix(random.below(24))
            request.prompt = Array((stem + request.prompt).prefix(24))
            if random.below(8) == 0 { request.cacheSalt = "other" }
        }
        if streams.source != nil {
            let count = 1 + random.below(min(limits.maxTokens, 11))
            request.source = (0..<count).map { _ in Int32(random.below(48)) }
        }
        // Half of the cases have priorities: without any, a bound holds for who gave up its row as well.
        if random.below(4) == 0 {
            let priority = random.below(3) - 1
            if self.seed % 2 == 0 { request.priority = priority }
        }
        if random.below(16) == 0 {
            request.prompt = Array(request.prompt.prefix(limits.maxTokens))
            request.returnsNamedOutputs = true
        }
        if beams, random.below(3) == 0 {
            var settings = SamplingSettings()
            settings.beamCount = 2 + random.below(2)
            settings.maxTokens = 1 + random.below(8)
            request.settings = settings
        }
        return request
    }
}

/// Runs a sequence of operations, checking all that must hold after each.
struct SchedulerRun {
    let setup: SchedulerCase
    private(set) var harness: SchedulerHarness
    private var id = 0

    init(_ setup: SchedulerCase) throws {
        self.setup = setup
        harness = try SchedulerHarness(
            limits: setup.limits, streams: setup.streams, pageCount: setup.pages,
            options: setup.options)
    }

    /// Runs operations, then to the end.
    ///
    /// - Parameter also: A further check after each operation.
    /// - Returns: The number of operations done, and what failed then; nil if nothing did.
    mutating func fail(
        _ operations: some Sequence<SchedulerOperation>,
        also: (SchedulerHarness) -> String? = { _ in nil }
    ) -> (count: Int, what: String)? {
        var count = 0
        for operation in operations {
            count += 1
            do { try apply(operation) } catch { return (count, "\(operation): \(error)") }
            if let broken = broken() ?? also(harness) { return (count, broken) }
        }
        settle(later: false)
        do { try harness.drain() } catch { return (count, "the end: \(error)") }
        return end().map { (count, $0) }
    }

    private mutating func apply(_ operation: SchedulerOperation) throws {
        func name(_ back: Int) -> RequestID { RequestID(UInt64(max(id - back, 0))) }
        switch operation {
        case .submit(let seed):
            guard harness.scheduler.counts.waiting < 5 else { return }
            id += 1
            // What can never run is refused.
            try? harness.submit(id, setup.request(seed: seed))
        case .schedule: _ = try harness.schedule()
        case .complete:
            try harness.complete()
            // As the engine does when pages are not to be kept for later.
            if !harness.scheduler.settlesLater { harness.scheduler.takePagesAhead() }
        case .completeBroken(let row): try harness.complete(brokenRow: row)
        case .cancel(let back): harness.cancel(name(back))
        case .fail(let back): harness.fail(name(back))
        case .pause(let back): harness.scheduler.pause(name(back))
        case .resume: for back in 0..<16 { harness.scheduler.resume(name(back)) }
        case .settle(let later): settle(later: later)
        case .takePagesAhead: harness.scheduler.takePagesAhead()
        }
    }

    private mutating func settle(later: Bool) {
        harness.scheduler.settlesLater = later
        if !later { harness.scheduler.settle() }
    }

    private func broken() -> String? {
        harness.scheduler.checkInvariants() ?? harness.checkPagesInFlight()
            ?? harness.model.violations.first ?? harness.wrongToken
            ?? harness.beamViolations.first ?? harness.tooLate
    }

    /// What is wrong when all requests have ended.
    private func end() -> String? {
        let scheduler = harness.scheduler
        if let broken = broken() { return broken }
        if !scheduler.isIdle { return "requests are left: \(scheduler.counts)" }
        if scheduler.counts.freePages != setup.pages { return "pages are left" }
        if scheduler.counts.freeHostPages != setup.options.hostPageCount {
            return "host pages are left"
        }
        if harness.finished.count != harness.requests.count { return "a request has no end" }
        for (name, request) in harness.requests where request.settings.beamCount == 1 {
            let expected = harness.model.answer(request)
            let got = harness.answers[name] ?? []
            let isCut = [.cancelled, .error].contains(harness.finished[name])
            let isRight = isCut ? expected.starts(with: got) : got == expected
            if !isRight { return "\(name) answers \(got), not \(expected)" }
        }
        return nil
    }

    /// The shortest sequence found that still fails, by leaving out parts, smaller and smaller.
    static func shrink(
        _ operations: [SchedulerOperation], _ fails: ([SchedulerOperation]) -> Bool
    ) -> [SchedulerOperation] {
        var best = operations
        var size = max(best.count / 2, 1)
        while true {
            var start = 0
            var isShorter = false
            while start < best.count {
                var shorter = best
                shorter.removeSubrange(start..<min(start + size, best.count))
                if fails(shorter) {
                    best = shorter
                    isShorter = true
                } else {
                    start += size
                }
            }
            if size == 1, !isShorter { return best }
            size = isShorter && size == 1 ? 1 : max(size / 2, 1)
        }
    }
}
