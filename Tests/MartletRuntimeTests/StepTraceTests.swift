// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Dispatch
import MartletBackend
import MartletCore
import MartletRuntime
import Synchronization
import Testing

/// What an observer is told of steps, and what becomes of it: logs, timelines, metrics.
@Suite struct StepTraceTests {
    private func traces(
        _ policy: SchedulingPolicy, pageCount: Int = 128, prompts: LengthDistribution,
        answers: LengthDistribution, count: Int = 24, declared: Int? = nil
    ) throws -> (traces: [StepTrace], plan: LoadPlan, records: [LoadRecord], EngineStatistics) {
        let executor = FakeExecutor(pageCount: pageCount)
        var options = InferenceEngine.Options()
        options.policy = policy
        options.preemption = .recompute
        let engine = try InferenceEngine(executor: executor, options: options)
        let seen = Mutex<[StepTrace]>([])
        engine.observe { trace in seen.withLock { $0.append(trace) } }
        let plan = LoadPlan(
            items: LoadItem.random(count: count, prompt: prompts, answer: answers, seed: 9),
            declaredLength: declared, arrivals: .atOnce, vocabularySize: 48, seed: 9)
        let (records, _) = try engine.run(plan)
        #expect(executor.violations.isEmpty)
        // Taken out: the engine may yet tell of a step that nobody waits for.
        let traces = seen.withLock { traces in
            defer { traces = [] }
            return traces
        }
        return (traces, plan, records, engine.statistics)
    }

    @Test(arguments: SchedulingPolicy.allCases)
    func tracesAccountForEveryToken(policy: SchedulingPolicy) throws {
        let (traces, plan, records, statistics) = try traces(
            policy, prompts: .uniform(2...30), answers: .logUniform(2...30))
        #expect(traces.map(\.number) == Array(0..<traces.count))
        for (trace, next) in zip(traces, traces.dropFirst()) {
            #expect(trace.submitted <= next.submitted && trace.completed <= next.completed)
        }
        #expect(traces.allSatisfy { $0.submitted <= $0.completed && $0.usedPageCount > 0 })
        #expect(
            traces.allSatisfy { trace in
                trace.rows.allSatisfy { trace.running.contains($0.request) }
                    && trace.rows.count <= 8 && trace.usedPageCount <= trace.pageCount
            })
        // Nothing is paused; the last token of an answer is not computed.
        let prompt = plan.entries.reduce(0) { $0 + $1.request.prompt.count }
        let answer = records.reduce(0) { $0 + $1.answerCount - 1 }
        #expect(
            traces.reduce(0) { $0 + $1.tokenCount(.prompt) } == prompt - statistics.reusedTokenCount
        )
        #expect(traces.reduce(0) { $0 + $1.tokenCount(.answer) } == answer)
        let padding = traces.reduce(0) { $0 + $1.tokenCount(.padding) }
        #expect((padding > 0) == (policy == .static))

        var timeline = Timeline()
        for trace in traces { timeline.add(trace) }
        #expect(timeline.slotCount == 8 && timeline.stepCount == traces.count)
        #expect(timeline.pauses.isEmpty)
        // No slot holds two at a time, no request has two slots.
        for slot in 0..<8 {
            let spans = timeline.spans.filter { $0.slot == slot }
            for (a, b) in zip(spans, spans.dropFirst()) {
                #expect(a.steps.upperBound <= b.steps.lowerBound)
            }
        }
        let slots = Dictionary(grouping: timeline.spans, by: \.request)
        #expect(slots.count == 24 && slots.values.allSatisfy { Set($0.map(\.slot)).count == 1 })
        if policy == .static {
            // Batches of eight: each begins when the one before has ended.
            let starts = slots.values.compactMap { $0.map(\.steps.lowerBound).min() }
            let ends = slots.values.compactMap { $0.map(\.steps.upperBound).max() }
            for batch in 0..<3 {
                let first = ends.sorted()[8 * batch], last = ends.sorted()[8 * batch + 7]
                // The slowest draws its last token while a step of the others is in flight.
                #expect(last - first <= 1)
                #expect(starts.count { $0 >= last } == 16 - 8 * batch)
            }
        }
    }

    @Test func pausesAreSeen() throws {
        let (traces, _, records, statistics) = try traces(
            .maxUtilization, pageCount: 30, prompts: .fixed(6), answers: .uniform(20...40))
        #expect(records.allSatisfy { !$0.hasFailed })
        #expect(statistics.preemptionCount > 0)
        var timeline = Timeline()
        for trace in traces { timeline.add(trace) }
        // One that is paused before it has had a row is not to be seen.
        #expect(timeline.pauses.count > 0)
        #expect(timeline.pauses.count <= statistics.preemptionCount)
        #expect(statistics.preemptionCount < 2 * timeline.pauses.count)
        for pause in timeline.pauses {
            #expect(
                timeline.spans.contains {
                    $0.request == pause.request && $0.slot == pause.slot
                        && $0.steps.upperBound == pause.step
                })
        }
        #expect(traces.last?.preemptionCount == statistics.preemptionCount)
        #expect(traces.contains { $0.cachedPageCount > 0 })
    }

    /// A load declares more tokens than it draws: the answers end at their drawn lengths.
    @Test func declaredLengthsAreNotDrawn() throws {
        let (_, plan, records, _) = try traces(
            .guaranteedNoEvict, prompts: .fixed(4), answers: .uniform(1...20), declared: 40)
        #expect(plan.entries.allSatisfy { $0.request.settings.maxTokens == 40 })
        for (entry, record) in zip(plan.entries, records) {
            #expect(record.answerCount == entry.request.stopsAfter)
        }
        #expect(Set(records.map(\.answerCount)).count > 5)
    }

    @Test func aLogLineSaysWhatTheStepDid() throws {
        var trace = StepTrace()
        trace.number = 7
        (trace.submitted, trace.completed, trace.deviceSeconds) = (2, 2.5, 0.25)
        trace.rows = [
            StepTrace.Row(request: RequestID(1), work: .prompt, tokenCount: 30),
            StepTrace.Row(request: RequestID(2), work: .answer, tokenCount: 1),
            StepTrace.Row(request: RequestID(3), work: .padding, tokenCount: 1),
        ]
        trace.running = [RequestID(1), RequestID(2), RequestID(3), RequestID(4)]
        (trace.waitingCount, trace.pageCount, trace.usedPageCount) = (5, 100, 60)
        let json = trace.json(policy: "static", start: 1, previous: 2.25)
        for (key, value) in [
            ("step", 7), ("tokens", 32), ("prompt_tokens", 30), ("answer_tokens", 1),
            ("padding_tokens", 1), ("batch", 3), ("running", 4), ("queue", 5), ("blocks", 100),
            ("blocks_used", 60),
        ] { #expect(json[key]?.int == value, "\(key)") }
        for (key, value) in [
            ("start_ms", 1000.0), ("end_ms", 1500), ("step_ms", 250), ("device_ms", 250),
        ] { #expect(json[key]?.double == value, "\(key)") }
    }

    @Test func refusedRequestsAreCounted() throws {
        let executor = FakeExecutor(isGated: true)
        let engine = try InferenceEngine(executor: executor)
        // All have come before the first step ends.
        DispatchQueue.global().asyncAfter(deadline: .now() + 0.3) { executor.release(10_000) }
        var plan = LoadPlan(
            count: 60, prompt: .fixed(8), answer: .fixed(8), arrivals: .atOnce,
            vocabularySize: 48, seed: 1)
        plan.queueLimit = 4
        let (records, _) = try engine.run(plan)
        let metrics = LoadMetrics(records, duration: 1)
        // A batch of 8 and a queue of 4; more if a step ends before all have come.
        #expect(metrics.failed >= 40 && metrics.completed >= 12)
        #expect(metrics.failed + metrics.completed == 60)
        #expect(records.compactMap(\.failure).allSatisfy { $0.contains("the queue is full") })
    }

    @Test func metricsSayWhatTheStatisticsSay() throws {
        let (traces, _, records, statistics) = try traces(
            .guaranteedNoEvict, prompts: .fixed(5), answers: .fixed(6))
        let metrics = Dictionary(
            uniqueKeysWithValues: statistics.metrics.map { ($0.name, $0.value) })
        #expect(metrics.count == statistics.metrics.count)
        // A figure that is added has to be given a name.
        #expect(metrics.count == Mirror(reflecting: statistics).children.count)
        #expect(metrics["martlet_requests_finished_total"] == .counter(24))
        #expect(metrics["martlet_answer_tokens_total"] == .counter(144))
        #expect(metrics["martlet_requests_running"] == .gauge(0))
        #expect(metrics["martlet_kv_blocks"] == .gauge(128))
        guard case .histogram(let steps)? = metrics["martlet_step_requests"] else {
            Issue.record("there is no histogram of batches")
            return
        }
        #expect(steps.count >= UInt64(traces.count) && records.count == 24)
        for metric in statistics.metrics {
            #expect(
                metric.name.allSatisfy { $0 == "_" || $0.isLowercase } && metric.help.hasSuffix(".")
            )
            if case .counter = metric.value { #expect(metric.name.hasSuffix("_total")) }
        }
    }

    @Test func bucketsDouble() {
        var histogram = BucketHistogram(firstBound: 1)
        for value in [0, 1, 1.5, 2, 3, 1e9, .nan, .infinity] { histogram.add(value) }
        let buckets = histogram.cumulative
        #expect(buckets.map(\.bound).prefix(4) == [1, 2, 4, 8])
        #expect(buckets.map(\.count).prefix(4) == [2, 4, 5, 5])
        #expect(buckets.last?.bound == .infinity && buckets.last?.count == 6)
        #expect(histogram.sum == 1_000_000_007.5)
    }
}
