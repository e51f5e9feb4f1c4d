// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
package import MartletEngineFile
import MartletGraph
import MartletReference

/// Checks a backend against the reference: op by dtype by scheme by odd shapes.
///
/// Each case runs with every kernel family that accepts it; each variant of the family, and the
/// same tokens one by one, must give the same bits.
package struct ConformanceSuite: Sendable {
    /// Loads a plan: plan, packed weights, limits.
    ///
    /// The executor needs KV pages for all requests at full context in every group, and should
    /// poison its buffers where it can.
    package typealias MakeExecutor =
        @Sendable (Plan, ParameterBytes, StepLimits) throws -> any PlanExecutor

    /// Largest step of the suite.
    package static let limits = StepLimits(
        maxTokens: 200, maxRequests: 4, maxLogitRows: 200, maxContext: 384)

    /// What is checked.
    package let cases: [ConformanceCase]
    let catalog: any KernelCatalog
    let makeExecutor: MakeExecutor
    /// Whether only some cases are kept.
    let isShort: Bool
    /// What numbers of all cases depend on.
    let seed: UInt64
    /// Whether a row has the same bits alone and among others; else they are equal within the tolerance.
    let agreesAlone: Bool

    /// Prepares the suite.
    ///
    /// - Parameters:
    ///   - catalog: The backend's kernels.
    ///   - agreesAlone: Whether a row has the same bits alone and among others.
    ///   - every: Only each such case of an op is kept, 1 or more.
    ///   - seed: What numbers of all cases depend on.
    ///   - makeExecutor: Loads a plan on the backend.
    package init(
        catalog: any KernelCatalog, agreesAlone: Bool = true, every: Int = 1,
        seed: UInt64 = 0, makeExecutor: @escaping MakeExecutor
    ) {
        self.catalog = catalog
        self.agreesAlone = agreesAlone
        self.seed = seed
        isShort = every > 1
        self.makeExecutor = makeExecutor
        var counts: [String: Int] = [:]
        cases = ConformanceCase.all(for: catalog).filter { item in
            defer { counts[item.op, default: 0] += 1 }
            return counts[item.op, default: 0] % every == 0
        }
    }

    /// Runs cases.
    ///
    /// - Parameters:
    ///   - width: Cases at once, each with an executor of its own.
    ///   - isIncluded: Which cases; all by default.
    ///   - progress: Called after each case with the number done.
    /// - Returns: One entry per case and family, in the cases' order; nothing is thrown, failures are entries.
    package func run(
        width: Int = 1, where isIncluded: (ConformanceCase) -> Bool = { _ in true },
        progress: (Int) -> Void = { _ in }
    ) async -> ConformanceReport {
        let included = cases.filter(isIncluded)
        var entries = [[ConformanceReport.Entry]](repeating: [], count: included.count)
        await withTaskGroup(of: (Int, [ConformanceReport.Entry]).self) { group in
            func start(_ index: Int) {
                guard index < included.count else { return }
                group.addTask { (index, await run(included[index])) }
            }
            for index in 0..<width { start(index) }
            var done = 0
            for await (index, found) in group {
                entries[index] = found
                start(done + width)
                done += 1
                progress(done)
            }
        }
        var report = ConformanceReport()
        report.entries = Array(entries.joined())
        return report
    }

    private func run(_ item: ConformanceCase) async -> [ConformanceReport.Entry] {
        func entry(
            _ family: String, _ outcome: ConformanceReport.Entry.Outcome, _ error: Double = 0
        ) -> ConformanceReport.Entry {
            ConformanceReport.Entry(
                name: item.name, family: family, outcome: outcome, largestError: error,
                tolerance: item.tolerance)
        }
        do {
            let subject = try item.subject(seed: seed)
            let (families, reasons) = try PlanSketch.families(item.op, subject, catalog)
            if families.isEmpty { return [entry("", .refused(reasons.joined(separator: "; ")))] }
            var entries: [ConformanceReport.Entry] = []
            for family in families {
                do {
                    let comparison = try await compare(item, subject, family)
                    entries.append(
                        entry(
                            family.name, comparison.failure.map { .failed($0) } ?? .passed,
                            comparison.largestError))
                } catch let refusal as PlanSketch.Refusal {
                    entries.append(entry(family.name, .refused(refusal.reason)))
                } catch {
                    entries.append(entry(family.name, .failed("\(error)"), .infinity))
                }
            }
            return entries
        } catch {
            return [entry("", .failed("\(error)"), .infinity)]
        }
    }

    /// Plans of cases with every family that accepts them: what a device may want to prepare for at once.
    package func plans(where isIncluded: (ConformanceCase) -> Bool = { _ in true }) throws -> [Plan]
    {
        try cases.filter(isIncluded).flatMap { item in
            let subject = try item.subject(seed: seed)
            return try PlanSketch.families(item.op, subject, catalog).accepted.compactMap {
                family in
                do {
                    return try PlanSketch(subject, op: item.op, family: family, catalog: catalog)
                        .plan
                } catch is PlanSketch.Refusal {
                    return nil
                }
            }
        }
    }

    private func compare(
        _ item: ConformanceCase, _ subject: ConformanceCase.Subject, _ family: KernelFamily
    ) async throws -> Comparison {
        let sketch = try PlanSketch(subject, op: item.op, family: family, catalog: catalog)
        let samples = item.op == "sample"
        let results = try await runSteps(sketch.plan, sketch, subject.steps, samples)
        var comparison = Comparison(
            tolerance: item.tolerance, smallestMagnitude: item.smallestMagnitude)
        let expected = try reference(subject)
        for (actual, wanted) in zip(results, expected) {
            for (name, value) in wanted {
                try comparison.check(actual[samples ? "tokens" : name], value, name)
            }
        }
        guard comparison.failure == nil else { return comparison }
        if family.variants.count > 1 {
            for variant in family.variants {
                let other = try await runSteps(
                    sketch.plan(with: variant), sketch, subject.steps, samples)
                comparison.checkBits(results, other, "variant \(variant.kernel)")
            }
        }
        // A row that sees later tokens of its step has no meaning in a step of one.
        let rowPerToken =
            subject.graph.outputs.allSatisfy {
                subject.graph.type(of: $0.value)?.shape.first == .T
            } && subject.graph.nodes.allSatisfy { $0.attributes["causal"] != false }
        if rowPerToken {
            let single = subject.steps.flatMap { parts in
                parts.flatMap { part in
                    part.tokens.map { [ConformanceCase.Part(request: part.request, tokens: [$0])] }
                }
            }
            let other = try await runSteps(sketch.plan, sketch, single, samples)
            comparison.checkAlone(results.joinedRows, other.joinedRows, sameBits: agreesAlone)
        }
        return comparison
    }

    private func runSteps(
        _ plan: Plan, _ sketch: PlanSketch, _ steps: [[ConformanceCase.Part]], _ samples: Bool
    ) async throws -> [[String: StepDriver.Rows]] {
        let executor = try makeExecutor(plan, sketch.parameters, Self.limits)
        let requestCount = 1 + (steps.joined().map(\.request).max() ?? 0)
        var driver = StepDriver(executor, requestCount: requestCount)
        var results: [[String: StepDriver.Rows]] = []
        for parts in steps { results.append(try await driver.run(parts, samples: samples)) }
        return results
    }

    private func reference(
        _ subject: ConformanceCase.Subject
    ) throws -> [[String: ReferenceValue]] {
        let interpreter = try ReferenceInterpreter(subject.graph, weights: subject.weights)
        let requestCount = 1 + (subject.steps.joined().map(\.request).max() ?? 0)
        var states = Array(repeating: interpreter.emptyState, count: requestCount)
        var starts = Array(repeating: 0, count: requestCount)
        return try subject.steps.map { parts in
            var requests = parts.map {
                ReferenceRequest(
                    tokens: $0.tokens, start: starts[$0.request], state: states[$0.request])
            }
            let result = try interpreter.evaluate(&requests)
            for (part, request) in zip(parts, requests) {
                states[part.request] = request.state
                starts[part.request] += part.tokens.count
            }
            return result.outputs
        }
    }
}

extension [[String: StepDriver.Rows]] {
    /// All steps' rows one after another.
    fileprivate var joinedRows: [[String: StepDriver.Rows]] {
        [reduce(into: [:]) { all, step in all.merge(step) { $0 + $1 } }]
    }
}
