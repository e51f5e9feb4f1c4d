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

@Suite(.serialized) struct LoadTests {
    @Test(arguments: [
        ("128", LengthDistribution.fixed(128)), ("uniform:3-9", .uniform(3...9)),
        ("log:16-512", .logUniform(16...512)),
    ]) func readsLengths(text: String, expected: LengthDistribution) throws {
        #expect(try LengthDistribution(text) == expected)
        #expect(expected.longest >= 9)
    }

    @Test(arguments: [
        "", "0", "-1", "x", "uniform:9-3", "log:0-5", "log:5", "log:1-2-3", "other:1-2", "1:2:3",
        "99999999999999999999", "uniform:-", "log:1-99999999999",
    ]) func refusesWhatIsNoLength(text: String) {
        let error = #expect(throws: MartletError.self) { try LengthDistribution(text) }
        #expect(error?.mend?.hasSuffix("from 1 to 16777216") == true)
    }

    @Test func thePlanFollowsItsSeed() throws {
        func plan(_ seed: UInt64) -> LoadPlan {
            LoadPlan(
                count: 4000, prompt: .uniform(1...4), answer: .logUniform(16...512),
                arrivals: .poisson(rate: 50), vocabularySize: 48, seed: seed)
        }
        let (a, b, c) = (plan(1), plan(1), plan(2))
        #expect(a.entries.map(\.request) == b.entries.map(\.request))
        #expect(a.entries.map(\.request) != c.entries.map(\.request))
        #expect(a.entries.map(\.arrival) == b.entries.map(\.arrival))
        let lengths = a.entries.map(\.request.settings.maxTokens)
        #expect(lengths.allSatisfy { (16...512).contains($0) })
        // Mean of a log-uniform length: 496 / ln 32; half of them are below 16 sqrt 32.
        let mean = Double(lengths.reduce(0, +)) / 4000
        #expect(abs(mean - 143.1) < 8)
        #expect(abs(lengths.count { $0 <= 90 } - 2000) < 150)
        #expect(Set(a.entries.map(\.request.prompt.count)) == [1, 2, 3, 4])
        // 4,000 arrivals at 50 a second.
        #expect(abs((a.entries.last?.arrival ?? 0) - 80) < 5)
        let gaps = zip(a.entries.dropFirst(), a.entries).map { $0.arrival - $1.arrival }
        let square = gaps.reduce(0) { $0 + $1 * $1 } / Double(gaps.count)
        #expect(abs(square * 2500 - 2) < 0.3)
    }

    @Test func percentilesAreRightToAThousandth() {
        var histogram = LatencyHistogram()
        var values: [Double] = []
        var random = TestRandom(3)
        for _ in 0..<5000 {
            let value = Double(1 + random.below(1000)) * (random.below(2) == 0 ? 1e-6 : 3.7e-3)
            values.append(value)
            histogram.add(value)
        }
        values.sort()
        for percent in [1, 10, 50, 90, 99, 99.9, 100] {
            let exact = values[max(Int((percent / 100 * 5000).rounded(.up)) - 1, 0)]
            let found = histogram.percentile(percent)
            #expect(abs(found - exact) <= exact * 1e-3 + 1e-6, "\(percent)")
        }
        #expect(abs(histogram.mean - values.reduce(0, +) / 5000) < 1e-9)
        histogram.add(.nan)
        histogram.add(-1)
        histogram.add(1e300)
        #expect(histogram.count == 5003)
        #expect(LatencyHistogram().percentile(99) == 0)
    }

    @Test func metricsCountWhatHappened() throws {
        var records = (0..<10).map { LoadRecord(index: $0, promptCount: 5) }
        for index in records.indices {
            records[index].answerCount = 11
            records[index].firstToken = Double(index + 1) / 10
            records[index].total = records[index].firstToken + 2
            records[index].gaps = [Double](repeating: 0.2, count: 10)
        }
        records[9].hasFailed = true
        let metrics = LoadMetrics(records, duration: 9, goal: try ServiceGoal("ttft=0.45,tpot=1"))
        #expect(metrics.requestRate == 1)
        #expect(abs(metrics.goodRate - 4.0 / 9) < 1e-12)
        let json = metrics.json()
        #expect(json["completed"]?.int == 9 && json["failed"]?.int == 1)
        #expect(json["total_input_tokens"]?.int == 45)
        #expect(json["output_throughput"]?.double == 11)
        #expect(abs((json["median_ttft_ms"]?.double ?? 0) - 500) < 1)
        #expect(abs((json["p99_itl_ms"]?.double ?? 0) - 200) < 1)
        #expect(abs((json["mean_tpot_ms"]?.double ?? 0) - 200) < 1)
        for wrong in [
            "", "ttft", "ttft=0", "ttft=x", "itl=1", "ttft=1,,tpot=1", "ttft=1e-8,ttft=1",
        ] {
            #expect(throws: MartletError.self) { try ServiceGoal(wrong) }
        }
    }

    @Test(arguments: [LoadPlan.Arrivals.atOnce, .poisson(rate: 400), .concurrency(3)])
    func runsALoadToItsEnd(arrivals: LoadPlan.Arrivals) throws {
        let executor = FakeExecutor()
        let engine = try InferenceEngine(executor: executor)
        let plan = LoadPlan(
            count: 40, prompt: .uniform(2...20), answer: .logUniform(2...30), arrivals: arrivals,
            vocabularySize: 48, seed: 4)
        let (records, duration) = try engine.run(plan)
        for (entry, record) in zip(plan.entries, records) {
            #expect(record.answerCount == entry.request.settings.maxTokens)
            #expect(record.gaps.count == record.answerCount - 1)
            #expect(record.firstToken > 0 && record.total >= record.firstToken)
        }
        #expect(duration >= plan.entries.last?.arrival ?? 0)
        if case .concurrency(let most) = arrivals {
            #expect(engine.statistics.largestBatch <= most)
        } else {
            #expect(engine.statistics.largestBatch <= 8)
        }
        #expect(executor.violations.isEmpty)
    }

    /// Times of arrival that no clock holds.
    @Test func arrivalsMayBeAnyNumber() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        var settings = SamplingSettings()
        settings.maxTokens = 2
        let request = GenerationRequest(prompt: [1, 2], settings: settings)
        func check(_ plan: LoadPlan) throws {
            let (records, duration) = try engine.run(plan)
            #expect(records.count == plan.entries.count && duration < 60)
            #expect(records.allSatisfy { $0.answerCount == 2 && !$0.hasFailed })
        }
        func entries(_ arrivals: [Double]) -> [LoadPlan.Entry] {
            arrivals.map { LoadPlan.Entry(request: request, arrival: $0) }
        }
        // One comes when another ends, whatever its time.
        try check(
            LoadPlan(
                entries: entries([-.infinity, 0, 1e18, 1e20, 1e25, 1e300, .infinity, .nan]),
                concurrency: 1))
        try check(LoadPlan(entries: entries([-.infinity, -1e300, -1, -.nan, 0])))
        var rare = LoadPlan(
            count: 9, prompt: .fixed(2), answer: .fixed(2), arrivals: .poisson(rate: 1e-300),
            vocabularySize: 48, seed: 4)
        #expect((rare.entries.last?.arrival ?? 0) > 1e290)
        rare.concurrency = 2
        try check(rare)
    }

    /// Also where a token is drawn twice, as of a vocabulary of one.
    @Test(arguments: [1, 2, 48]) func settingsVary(vocabularySize: Int) throws {
        var plan = LoadPlan(
            count: 200, prompt: .fixed(2), answer: .fixed(2), arrivals: .atOnce,
            vocabularySize: vocabularySize, seed: 1)
        plan.varySampling(vocabularySize: vocabularySize, seed: 1)
        let settings = plan.entries.map(\.request.settings)
        #expect(
            settings.contains { !$0.logitBias.isEmpty }
                && settings.contains { $0.logitBias.isEmpty })
        #expect(
            settings.contains { $0.temperature > 0 } && settings.contains { $0.temperature == 0 })
        #expect(settings.allSatisfy { $0.logitBias.keys.allSatisfy { $0 < vocabularySize } })
    }

    /// No concurrency at all would wait for ever.
    @Test(arguments: [0, -3]) func oneRequestRunsAtLeast(concurrency: Int) throws {
        var plan = LoadPlan(
            count: 3, prompt: .fixed(2), answer: .fixed(2), arrivals: .atOnce, vocabularySize: 48,
            seed: 1)
        plan.concurrency = concurrency
        let (records, _) = try InferenceEngine(executor: FakeExecutor()).run(plan)
        #expect(records.count == 3 && records.allSatisfy { !$0.hasFailed })
    }

    /// A request that the engine refuses is named by its place in the file.
    @Test func namesThePlaceOfARequest() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        func error(_ prompt: [Int32], _ settings: SamplingSettings) -> MartletError? {
            let items = [[1, 2], prompt].enumerated().map { index, prompt in
                LoadItem(prompt: .tokens(prompt), answer: .length(2), place: "f:\(index + 1)")
            }
            let plan = LoadPlan(
                items: items, settings: settings, arrivals: .atOnce, vocabularySize: 48, seed: 1)
            return #expect(throws: MartletError.self) { _ = try engine.run(plan) }
        }
        let wrong = error([0, 48], SamplingSettings())
        #expect(wrong?.message == "f:2: prompt token 1 is 48, but must be 0 to 47")
        #expect(wrong?.mend != nil)
        let long = error([Int32](repeating: 1, count: 1 << 16), SamplingSettings())
        #expect(long?.message.hasPrefix("f:2: the prompt has 65536 tokens") == true)
        #expect(long?.mend != nil)
        // That of all of them is no line's.
        var settings = SamplingSettings()
        settings.topP = -1
        #expect(error([1], settings)?.message.hasPrefix("top-p is -1") == true)
    }

    /// Cancelled requests end behind the token that the plan says, are counted apart, and give back their pages.
    @Test func cancelsAShareOfALoad() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        var plan = LoadPlan(
            count: 200, prompt: .uniform(2...20), answer: .logUniform(2...30), arrivals: .atOnce,
            vocabularySize: 48, seed: 4)
        plan.keepsTokens = true
        plan.cancel(share: 0.5, seed: 9)
        let moments = plan.entries.compactMap(\.cancelsAfter)
        #expect((70...130).contains(moments.count) && moments.contains(0))
        let (records, duration) = try engine.run(plan)
        for (entry, record) in zip(plan.entries, records) {
            let length = entry.request.settings.maxTokens
            #expect(record.tokens.count == record.answerCount)
            guard let moment = entry.cancelsAfter else {
                #expect(!record.isCancelled && record.answerCount == length)
                continue
            }
            #expect(moment < length)
            // Steps under way when the word comes may still bring tokens, or the end.
            #expect(record.isCancelled || record.answerCount == length)
            #expect(record.answerCount >= moment)
        }
        let metrics = LoadMetrics(records, duration: duration)
        #expect(metrics.cancelled > 30 && metrics.completed + metrics.cancelled == 200)
        #expect(metrics.json()["cancelled"]?.int == metrics.cancelled)
    }

    /// Requests of several answers end with the last of these: searches, answers side by side, and the best of some.
    @Test func requestsOfSeveralAnswersEndWithTheLast() throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        var settings = SamplingSettings()
        settings.maxTokens = 10
        var entries: [LoadPlan.Entry] = []
        for (beams, answers, best) in [(2, 2, nil), (1, 3, nil), (1, 2, 4), (1, 1, nil)]
            as [(Int, Int, Int?)]
        {
            settings.beamCount = beams
            settings.answerCount = answers
            settings.bestOf = best
            settings.temperature = beams > 1 || answers == 1 ? 0 : 1
            entries.append(
                LoadPlan.Entry(request: GenerationRequest(prompt: [1, 2, 3], settings: settings)))
        }
        var plan = LoadPlan(entries: entries)
        plan.keepsTokens = true
        let (records, _) = try engine.run(plan)
        for (entry, record) in zip(plan.entries, records) {
            let alone = try engine.generateBatch([entry.request])[0]
            #expect(!record.isCancelled && !record.hasFailed && record.total > 0)
            #expect(record.answerCount == 10 * entry.request.settings.answerCount)
            #expect(
                record.tokens.starts(with: alone.tokens)
                    && record.tokens.count == record.answerCount)
        }
    }

    /// Lengths that a program may give, whatever they are.
    @Test(arguments: [
        LengthDistribution.uniform(0...Int.max), .uniform(Int.min...Int.max), .logUniform(0...64),
        .logUniform(1...Int.max), .logUniform(-5...0),
    ]) func lengthsStayInTheirRange(lengths: LengthDistribution) {
        let items = LoadItem.random(count: 100, prompt: .fixed(1), answer: lengths, seed: 3)
        for item in items {
            switch lengths {
            case .uniform(let range), .logUniform(let range):
                #expect(range.contains(item.answerCount))
            case .fixed: break
            }
        }
    }

    /// A load that is stopped tells what was answered by then; the rest is cancelled, the engine as before.
    @Test(arguments: [LoadPlan.Arrivals.atOnce, .poisson(rate: 1e-3), .concurrency(3)])
    func stopsALoad(arrivals: LoadPlan.Arrivals) throws {
        let engine = try InferenceEngine(executor: FakeExecutor())
        let count = 100
        var plan = LoadPlan(
            count: count, prompt: .uniform(2...20), answer: .uniform(2...40), arrivals: arrivals,
            vocabularySize: 48, seed: 4)
        if let first = plan.entries.first?.arrival {
            for index in plan.entries.indices { plan.entries[index].arrival -= first }
        }
        let stop = LoadStop()
        engine.observe { trace in if trace.number == 20 { stop.request() } }
        // Where the next request is minutes away, no step says that it is time.
        if case .poisson = arrivals {
            let isStarted = DetachedThread.start {
                usleep(200_000)
                stop.request()
            }
            try #require(isStarted)
        }
        let (records, duration) = try engine.run(plan, stop: stop)
        engine.observe(nil)
        #expect(stop.isRequested && duration < 30)
        let metrics = LoadMetrics(records, duration: duration)
        #expect(metrics.completed > 0 && metrics.completed < count)
        #expect(metrics.completed + metrics.cancelled == count && metrics.failed == 0)
        for (entry, record) in zip(plan.entries, records) where !record.isCancelled {
            #expect(record.answerCount == entry.request.settings.maxTokens)
        }
        // A stop stays one: nothing of a second load is begun.
        let (second, _) = try engine.run(plan, stop: stop)
        #expect(second.allSatisfy { $0.isCancelled && $0.answerCount == 0 })
    }
}
