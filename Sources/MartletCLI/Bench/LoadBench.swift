// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCore

/// Runs a load, once under each policy.
struct LoadBench {
    let found: ModelChoice.Found
    let flags: LoadFlags
    let scheduling: SchedulingOptions
    let limits: LimitOptions
    /// How answers are drawn; its seed makes the load.
    let settings: SamplingSettings
    /// Whether steps of the plan are timed.
    let isProfiling: Bool

    /// Loads the model for each policy, runs the load and writes files asked for.
    ///
    /// Once something is measured the first Ctrl-C ends the load, and what was measured by then is told and written, as it
    /// is where a later policy fails; the second ends the program.
    /// - Parameters:
    ///   - options: How the model is loaded; limits that the user did not set follow the load.
    ///   - form: What the results are printed as.
    /// - Throws: `MartletError` if the load cannot run, nothing of it was answered, or, behind the
    ///   results, a file could not be written; `CancellationError` if it was interrupted.
    func run(_ options: LoadOptions, _ form: Table.Form) throws {
        var options = options
        let goal = try flags.slo.map { try ServiceGoal($0) }
        let known = try limits.maxContext ?? found.longestContext()
        let items = try flags.items(found.textTokens, context: known, seed: settings.seed)
        let most = min(flags.concurrency ?? 16, 256)
        options.maxBatchSize = limits.maxBatchSize ?? min(most, limits.maxNumTokens ?? most)
        options.maxTokensPerStep = limits.maxNumTokens ?? max(512, options.maxBatchSize)
        options.maxContext = limits.maxContext ?? max(items.map(flags.length).max() ?? 1, 1)
        try checkMemory(items)
        var results: [LoadResult] = []
        var (precision, profile) = ("", Table?.none)
        let policies = try scheduling.policies()
        let stop = LoadStop()
        defer { Interrupt.onInterrupt(nil) }
        func run(_ policy: SchedulingPolicy) throws {
            try scheduling.apply(to: &options, policy: policy)
            let model = try found.load(options)
            if results.isEmpty { Self.stopOnInterrupt(stop) }
            var plan = LoadPlan(
                items: items, settings: settings, declaredLength: flags.declaredOutputLen,
                arrivals: flags.arrivals, vocabularySize: model.vocabularySize, seed: settings.seed)
            if flags.varySampling {
                plan.varySampling(vocabularySize: model.vocabularySize, seed: settings.seed)
            }
            plan.queueLimit = flags.queueLimit
            plan.keepsTokens = flags.checkAlone
            plan.cancel(share: flags.cancelShare ?? 0, seed: settings.seed)
            try warmUp(model, plan, stop)
            if stop.isRequested { return }
            results.append(
                try measure(model, plan, policy, goal, stop, isForPeople: form == .text))
            precision = model.precisionLine
            if isProfiling { profile = ProfileTable.table(model) }
        }
        var failure: (any Error)?
        do {
            for policy in policies where !stop.isRequested { try run(policy) }
        } catch { failure = error }
        guard !results.isEmpty else { throw failure ?? CancellationError() }
        // Before the figures, which may end the program; a file that fails must not cost them.
        let unwritten = writeFiles(results)
        let report = LoadReport(
            name: found.name, flags: flags, seed: settings.seed, goal: goal, results: results,
            isInterrupted: stop.isRequested)
        if form == .text {
            Console.line(report.table.rendered(.text))
            Console.line("batch of \(options.maxBatchSize), \(precision)")
        } else if form == .json, let profile {
            let both = JSONObject([("policies", report.fields.json), ("steps", profile.json)])
            Console.line(JSONValue.object(both).serialized(pretty: true))
        } else {
            Console.line(report.fields.rendered(form))
        }
        if form != .json, let profile { Console.line("\n" + profile.rendered(form)) }
        let failures = results.flatMap(\.records).compactMap(\.failure)
        if let failure = failures.first { Console.error("\(failures.count) failed: \(failure)") }
        for error in unwritten.dropFirst() { Console.error("error: " + "\(error)".visible) }
        if let error = unwritten.first { throw error }
        for result in results { try result.aftermath?.check() }
        if let failure { throw failure }
        if stop.isRequested { throw CancellationError() }
        let unanswered = results.filter { $0.metrics.completed == 0 }
        guard unanswered.allSatisfy({ $0.metrics.failed == 0 }) else {
            throw MartletError(
                .checkFailed, "no request was answered", mend: "See the failure above")
        }
        if !unanswered.isEmpty {
            Console.error("no request was answered: --cancel-share cancelled all of them")
        }
    }

    /// Lets the first Ctrl-C end the load; the next one ends the program.
    private static func stopOnInterrupt(_ stop: LoadStop) {
        Interrupt.onInterrupt {
            Interrupt.onInterrupt(nil)
            stop.request()
        }
    }

    /// Refuses a load whose requests alone take most of the host's memory.
    private func checkMemory(_ items: [LoadItem]) throws {
        // A token id has 4 bytes; what is kept of a request beside them is taken as 1,024, not measured.
        let bytes = items.reduce(0) { $0 + $1.promptCount * 4 + 1024 }
        guard bytes <= MachineMemory.byteCount / 2 else {
            throw MartletError(
                .limitExceeded,
                "\(items.count) requests take \(Format.bytes(bytes)) of the host's "
                    + "\(Format.bytes(MachineMemory.byteCount))",
                mend: "Lower --request-count, or the lengths of prompts")
        }
    }

    private func measure(
        _ model: LanguageModel, _ plan: LoadPlan, _ policy: SchedulingPolicy, _ goal: ServiceGoal?,
        _ stop: LoadStop, isForPeople: Bool
    ) throws -> LoadResult {
        let recorder = LoadRecorder(
            policy: policy, keepsLog: flags.iterationLog != nil,
            keepsTimeline: flags.timeline != nil)
        let (before, holdings) = (model.statistics, LoadAftermath.Holdings())
        let view =
            isForPeople && !flags.quiet && Console.isInteractive
            ? LoadView(policy: policy, requestCount: plan.entries.count, rows: model.rowLimit) : nil
        if view != nil || recorder.isNeeded {
            model.observe { trace in
                recorder.add(trace)
                view?.add(trace)
            }
        }
        view?.start { model.statistics.finishedRequestCount - before.finishedRequestCount }
        defer { view?.stop() }
        model.isProfiling = isProfiling
        let (records, duration) = try model.run(plan, stop: stop)
        // What is run alone afterwards belongs to no log and no profile.
        model.isProfiling = false
        model.observe(nil)
        return LoadResult(
            policy: policy, records: records,
            metrics: LoadMetrics(records, duration: duration, goal: goal ?? ServiceGoal()),
            before: before, after: model.statistics, recorder: recorder,
            aftermath: flags.cancelShare != nil || flags.checkAlone
                ? LoadAftermath(model, plan, records, before: holdings, stop) : nil)
    }

    /// Runs something before the load, so that no request pays for pages that are touched for the first time.
    ///
    /// Before a load with cancellations it is that load's own requests, batch by batch until nearly every page holds
    /// something: what is held then is what the load may leave.
    private func warmUp(_ model: LanguageModel, _ plan: LoadPlan, _ stop: LoadStop) throws {
        var first = plan
        first.concurrency = model.rowLimit
        func run(_ entries: some Sequence<LoadPlan.Entry>) throws {
            first.entries = Array(entries)
            for index in first.entries.indices {
                first.entries[index].request.cacheSalt = "warm-up"
            }
            _ = try model.run(first, stop: stop)
        }
        guard flags.cancelShare != nil else {
            guard model.maxContext > 8 else { return }
            var request = GenerationRequest(prompt: [Int32](repeating: 0, count: 8))
            request.settings.maxTokens = min(4, model.maxContext - 8)
            return try run([LoadPlan.Entry(request: request, arrival: 0)])
        }
        var (rest, known) = (plan.entries[...], 0)
        repeat {
            known = model.statistics.cachedPageCount
            try run(rest.prefix(model.rowLimit))
            rest = rest.dropFirst(model.rowLimit)
        } while !rest.isEmpty && !stop.isRequested && model.statistics.cachedPageCount > known
            && model.statistics.cachedPageCount < model.statistics.pageCount * 9 / 10
    }

    /// Writes the files asked for, each whatever becomes of the other; gives back what failed.
    private func writeFiles(_ results: [LoadResult]) -> [any Error] {
        var failures: [any Error] = []
        func write(_ text: String, to path: String, done: String? = nil) {
            do {
                try OutputFile.write(Array(text.utf8), to: path)
                if let done { Console.error(done) }
            } catch { failures.append(error) }
        }
        if let path = flags.iterationLog {
            let lines = results.flatMap { $0.recorder.lines }
            write(lines.map { $0 + "\n" }.joined(), to: path)
        }
        if let path = flags.timeline {
            let svg = LoadTimelineChart(title: found.name, results).svg
            write(svg, to: path, done: "\(path): timeline")
        }
        return failures
    }
}

/// What a load measured under one policy.
struct LoadResult {
    let policy: SchedulingPolicy
    let records: [LoadRecord]
    let metrics: LoadMetrics
    /// The engine's counts before and after the load.
    let before: EngineStatistics, after: EngineStatistics
    let recorder: LoadRecorder
    /// Where requests are cancelled or checked, what was left of them.
    let aftermath: LoadAftermath?

    /// What a count grew by.
    func growth(_ count: KeyPath<EngineStatistics, Int>) -> Int {
        after[keyPath: count] - before[keyPath: count]
    }

    /// Requests of a step on average.
    var meanBatch: Double {
        let (first, last) = (before.stepRequests, after.stepRequests)
        return (last.sum - first.sum) / Double(max(last.count &- first.count, 1))
    }
}
