// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletAllocationCounter
import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Takes no time: each step is complete when it is submitted, with tokens from a counter.
///
/// `@unchecked Sendable`: the engine's thread alone calls it; others read when it is done.
private final class NullExecutor: PlanExecutor, @unchecked Sendable {
    let limits: StepLimits
    let kvGroups = [FakeModel.group(blockSize: 16)]
    let pageCount: Int
    let hostPageCount = 0
    let entryPoints = ["decode"]
    let vocabularySize = 32_000
    let stateSlotCount = 1
    let maxStepsInFlight = 2
    /// Of each submission: the thread's allocations so far.
    private(set) var allocations: [Int64] = []
    private var next: Int32 = 0

    init(requests: Int, context: Int) {
        limits = StepLimits(
            maxTokens: max(512, 2 * requests), maxRequests: requests, maxLogitRows: requests,
            maxContext: context)
        pageCount = requests * (context / 16 + 2)
        allocations.reserveCapacity(1 << 16)
    }

    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        if allocations.count < allocations.capacity {
            allocations.append(martlet_allocation_count())
        }
        outputs.tokens.removeAll(keepingCapacity: true)
        outputs.status.removeAll(keepingCapacity: true)
        for _ in 0..<step.logitRowCount {
            next = (next + 1) % 30_000
            outputs.tokens.append(next)
            outputs.status.append(.ok)
        }
        completion(nil)
    }
}

/// Text that costs nothing to make.
private struct ShortText: TokenDecoding {
    struct Stream: TokenTextStream {
        mutating func append(_ token: Int32) -> String { " word" }
        mutating func finish() -> String { "" }
    }

    func makeTextStream() -> any TokenTextStream { Stream() }
}

/// Counts what it is told and keeps nothing, as a reader that is quick.
private final class CountingSink: GenerationSink {
    let received = Atomic<Int>(0)
    private let done: Mailbox<Int>

    init(_ done: Mailbox<Int>) { self.done = done }

    func receive(_ event: GenerationEvent) -> Bool {
        received.add(1, ordering: .relaxed)
        if event.finishReason != nil { done.send(1) }
        return true
    }

    func fail(_ error: MartletError) { done.send(0) }
}

/// What the host does between two steps, against a device that takes no time.
///
/// `MARTLET_PRINT_HOST_TIME=1`, for this suite alone, checks times and prints the table of
/// `Documentation/Performance.md`.
@Suite(.serialized) struct HostTimeTests {
    private struct Figures {
        /// From noticing a step's end to the next submission, and per step in all, microseconds.
        var critical = Double.infinity, total = Double.infinity
        /// Allocations of the engine's thread in 1,000 steps.
        var allocations: Int64 = 0
    }

    /// What the engine serves.
    private enum Load: String {
        /// All requests begin and end together.
        case together
        /// 16 times as many requests as rows, with answers of 16 to 512 tokens: each one's end lets another begin.
        case comingAndGoing = "coming and going"

        func answers(_ rows: Int) -> [Int] {
            switch self {
            case .together: return [Int](repeating: 1300, count: rows)
            case .comingAndGoing:
                var random = TestRandom(3)
                return (0..<16 * rows).map { _ in
                    Int(16 * pow(32, Double(random.below(1 << 20)) / Double(1 << 20)))
                }
            }
        }
    }

    /// - Parameter keepsPrefixes: Whether blocks of ended requests stay known, as by default.
    private func measure(
        _ requests: Int, _ load: Load, keepsPrefixes: Bool, rounds: Int
    ) throws -> Figures {
        let answers = load.answers(requests)
        let executor = NullExecutor(requests: requests, context: (answers.max() ?? 0) + 16)
        var options = InferenceEngine.Options()
        options.reusesPrefixes = keepsPrefixes
        let engine = try InferenceEngine(
            executor: executor, decoding: ShortText(), options: options)
        var figures = Figures()
        var last = engine.statistics
        for _ in 0..<rounds {
            let done = Mailbox<Int>()
            let sink = CountingSink(done)
            try engine.run(
                answers.enumerated().map { index, answer in
                    var settings = SamplingSettings()
                    settings.maxTokens = answer
                    settings.temperature = 0.8
                    settings.topP = 0.9
                    settings.seed = UInt64(index)
                    return GenerationRequest(prompt: [1, 2, 3], settings: settings)
                }, sink: sink)
            var received: [Int] = []
            var ended = 0
            while ended < answers.count {
                done.receive(into: &received)
                ended += received.count
            }
            let now = engine.statistics
            let steps = Double(now.stepCount - last.stepCount)
            figures.critical = min(
                figures.critical,
                (now.criticalSeconds - last.criticalSeconds)
                    / Double(max(now.criticalStepCount - last.criticalStepCount, 1)) * 1e6)
            figures.total = min(figures.total, (now.hostSeconds - last.hostSeconds) / steps * 1e6)
            last = now
        }
        // The last round's middle: 1,000 steps far from its beginning and its end.
        let counts = executor.allocations.suffix(1150)
        if let first = counts.first, counts.count == 1150 {
            figures.allocations = counts[counts.startIndex + 1000] - first
        }
        engine.shutdown()
        return figures
    }

    @Test func staysWithinMicrosecondsAndAllocatesNothing() throws {
        let isAlone = getenv("MARTLET_PRINT_HOST_TIME") != nil
        var lines: [String] = []
        for (requests, limit) in [(1, 5.0), (64, 20), (256, 20), (1024, 80)] {
            for (load, keepsPrefixes) in [
                (Load.together, false), (.together, true), (.comingAndGoing, true),
            ] where isAlone || requests < 1024 || !keepsPrefixes {
                let figures = try measure(
                    requests, load, keepsPrefixes: keepsPrefixes, rounds: isAlone ? 5 : 2)
                lines.append(
                    "| \(requests) | \(load.rawValue)\(keepsPrefixes ? "" : ", no prefix cache") | "
                        + "\(Self.text(figures.critical)) | \(Self.text(figures.total)) | "
                        + "\(figures.allocations) |")
                // Beside other tests time says nothing; alone, three times the limit is a defect.
                if isAlone { #expect(figures.critical < 3 * limit, "\(requests) \(load)") }
                if martlet_allocation_count() >= 0 {
                    // Tables and mailboxes still grow a few times, and each request that begins costs some; tokens must not.
                    let most = load == .together ? 100 : 1000 * requests / 20
                    #expect(figures.allocations < most, "\(requests) \(load)")
                }
            }
        }
        guard isAlone else { return }
        print("| requests | load | critical, us | all, us | allocations in 1,000 steps |")
        for line in lines { print(line) }
    }

    /// Every step walks over its items several times.
    @Test func workItemsFillOneCacheLine() { #expect(MemoryLayout<WorkItem>.stride == 64) }

    @Test func theCounterCounts() {
        let before = martlet_allocation_count()
        guard before >= 0 else { return }
        var arrays: [[Int]] = []
        for size in 1...10 { arrays.append([Int](repeating: size, count: 100)) }
        #expect(martlet_allocation_count() - before >= 10)
        #expect(arrays.count == 10)
    }

    private static func text(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}
