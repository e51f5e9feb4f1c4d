// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import MartletGraph

/// Checks that a backend's sampler draws what the host's sampler draws from the same logits.
///
/// Random settings, biases, masks and histories over several steps; tokens, states of rows and
/// log-probabilities must be the same bit for bit.
struct SamplerConformance {
    /// V of the checks: odd, around a block's size, and that of a small model.
    static let vocabularySizes = [1, 37, 1000, 4099, 49_152]
    /// Of the short form: under a tool that watches each access a step of the largest takes minutes.
    static let shortVocabularySizes = [37, 4099]
    private static let stepCount = 24
    private static let requestCount = 4

    let vocabularySize: Int
    private var random: SeededRandom
    private let rows: [[Float]]
    private let executor: any PlanExecutor
    private let record: StepRecord
    private var reference: StepSampler
    private var isFresh = [Bool](repeating: true, count: requestCount)

    /// A table whose rows are logits, and a plan that samples from them.
    init(
        vocabularySize: Int, seed: UInt64, catalog: any KernelCatalog,
        makeExecutor: ConformanceSuite.MakeExecutor
    ) throws {
        self.vocabularySize = vocabularySize
        var random = SeededRandom(name: "sampler \(vocabularySize)", seed: seed)
        rows = (0..<ConformanceCase.rowCount).map { row in
            (0..<vocabularySize).map { column in
                let value = Float.random(in: -9..<9, using: &random)
                return switch row {
                case 0...5: value
                case 6...11: (value * 4).rounded() / 4  // ties
                case 12...14: value * 0.02  // flat
                case 15: 0
                case 16: column == vocabularySize / 2 ? .infinity : value
                default: column == vocabularySize - 1 ? .nan : value
                }
            }
        }
        let table = WeightValue.plain(
            try TensorData(rows.flatMap { $0 }, shape: [rows.count, vocabularySize]))
        let item = ConformanceCase("sample", "settings", tolerance: 0) { builder in
            let table = builder.parameter("table", table)
            let x = try builder.op(
                "embedding", [table, builder.input("tokens")], ["dtype": "f32"])
            let logits = try builder.op("gatherRows", [x, builder.input("logitRows")])
            builder.output(try builder.op("sample", [logits]))
        }
        let subject = try item.subject()
        guard let family = try PlanSketch.families("sample", subject, catalog).accepted.first
        else { throw PlanSketch.Refusal(reason: "no family samples") }
        let sketch = try PlanSketch(subject, op: "sample", family: family, catalog: catalog)
        executor = try makeExecutor(sketch.plan, sketch.parameters, ConformanceSuite.limits)
        record = StepRecord(
            limits: executor.limits, groups: [], vocabularySize: vocabularySize)
        reference = StepSampler(
            vocabularySize: vocabularySize, stateSlotCount: executor.stateSlotCount)
        self.random = random
    }

    /// Runs all steps, or a quarter of them.
    ///
    /// - Returns: What differed first; nil if nothing did.
    /// - Throws: `MartletError` of the executor.
    mutating func run(isShort: Bool) async throws -> String? {
        for step in 0..<Self.stepCount / (isShort ? 4 : 1) {
            let logits = try fill(step)
            let outputs = StepOutputs()
            let (executor, record) = (executor, record)
            try await withCheckedThrowingContinuation {
                (done: CheckedContinuation<Void, any Error>) in
                do {
                    try executor.submit(record, outputs: outputs) { error in
                        if let error { done.resume(throwing: error) } else { done.resume() }
                    }
                } catch { done.resume(throwing: error) }
            }
            let expected = StepOutputs()
            logits.withUnsafeBufferPointer {
                if let base = $0.baseAddress {
                    reference.run(record, logits: base, outputs: expected)
                }
            }
            if let difference = compare(outputs, expected) { return "step \(step): \(difference)" }
        }
        return nil
    }

    private func compare(_ actual: StepOutputs, _ expected: StepOutputs) -> String? {
        guard actual.tokens.count == expected.tokens.count else {
            return "\(actual.tokens.count) rows, not \(expected.tokens.count)"
        }
        for row in expected.tokens.indices {
            if actual.status[row] != expected.status[row] {
                return "row \(row) is \(actual.status[row]), not \(expected.status[row])"
            }
            if actual.tokens[row] != expected.tokens[row] {
                return "row \(row) has token \(actual.tokens[row]), not \(expected.tokens[row])"
            }
            let (a, b) = (actual.logProbabilities[row], expected.logProbabilities[row])
            if a.bitPattern != b.bitPattern {
                return "row \(row) has log-probability \(a), not \(b)"
            }
            if actual.topLogProbabilities[row] != expected.topLogProbabilities[row] {
                return "row \(row) lists other tokens than the most likely ones"
            }
        }
        return nil
    }

    /// Fills the record with random requests; returns their logits, a number that nobody reads where nobody draws.
    private mutating func fill(_ step: Int) throws -> [Float] {
        let counts = (0..<Self.requestCount).map { _ in Int.random(in: 1...2, using: &random) }
        let rowTotal = counts.reduce(0, +)
        // In some steps nobody draws, as while a long prompt is computed alone; histories count there too.
        let logitTotal = step % 4 == 0 ? 0 : rowTotal
        record.begin(stream: 0, number: step)
        record.setCounts(tokens: rowTotal, requests: counts.count, logitRows: logitTotal)
        let tokens = try record.add(.tokenSource, count: rowTotal)
        let positions = try record.add(.positions, count: rowTotal)
        let requestIndex = try record.add(.requestIndex, count: rowTotal)
        let queryStart = try record.add(.queryStart, count: counts.count + 1)
        let logitRows = try record.add(.logitRows, count: logitTotal)
        let rowUse = try record.add(.rowUse, UInt32.self, count: logitTotal)
        queryStart[0] = 0
        var logits: [Float] = []
        var row = 0
        for (request, count) in counts.enumerated() {
            for offset in 0..<count {
                let id = Int.random(in: 0..<rows.count, using: &random)
                tokens[row] = Int32(id)
                positions[row] = Int32(offset)
                requestIndex[row] = Int32(request)
                if logitTotal > 0 {
                    logitRows[row] = Int32(row)
                    rowUse[row] = Int.random(in: 0..<8, using: &random) == 0 ? 0 : 1
                    logits += rows[id]
                }
                row += 1
            }
            queryStart[request + 1] = Int32(row)
        }
        try fillSettings(step)
        if step % 3 == 2, logitTotal > 0 { try fillMask(logitTotal) }
        return logits.isEmpty ? [0] : logits
    }

    private mutating func fillMask(_ rowCount: Int) throws {
        let words = (vocabularySize + 31) / 32
        let mask = try record.add(.logitMask, UInt32.self, count: rowCount * words)
        for row in 0..<rowCount {
            let isEmpty = row == 0 && Int.random(in: 0..<4, using: &random) == 0
            for word in 0..<words {
                mask[row * words + word] =
                    isEmpty ? 0 : UInt32.random(in: 0...UInt32.max, using: &random)
            }
        }
    }

    private mutating func fillSettings(_ step: Int) throws {
        let count = Self.requestCount
        let all = try record.add(
            .samplingParameters, SamplingParameters.self, count: count)
        var pairs: [LogitBias] = []
        var history: [Int32] = []
        var starts: [Int32] = [0]
        let slots = try record.add(.stateSlot, count: count)
        for request in 0..<count {
            var settings = SamplingParameters()
            settings.temperature = pick([0, 0.3, 1, 1, 2.5])
            settings.topK = pick([0, 0, 1, 5, 40])
            settings.topP = pick([1, 0.95, 0.5, 0])
            settings.minP = pick([0, 0, 0.05, 0.4])
            settings.typicalP = pick([1, 1, 0.9, 0.3])
            settings.repetitionPenalty = pick([1, 1, 1.3, 0.7])
            settings.presencePenalty = pick([0, 0, 0.5, -1])
            settings.frequencyPenalty = pick([0, 0, 0.25])
            settings.seedLow = UInt32.random(in: 0...UInt32.max, using: &random)
            settings.seedHigh = UInt32.random(in: 0...UInt32.max, using: &random)
            settings.outputPosition = UInt32(step)
            settings.logProbabilityCount = pick([-1, 0, 5, 20])
            settings.biasStart = Int32(pairs.count)
            if Int.random(in: 0..<3, using: &random) == 0 {
                for _ in 0..<Int.random(in: 1...9, using: &random) {
                    pairs.append(
                        LogitBias(
                            token: Int32.random(
                                in: -1...Int32(min(vocabularySize, 12)), using: &random),
                            bias: pick([-.infinity, -2, 0.5, 7, .greatestFiniteMagnitude])))
                }
            }
            settings.biasCount = Int32(pairs.count) - settings.biasStart
            slots[request] = Int32(request == 3 ? -1 : request)
            if isFresh[request] || Int.random(in: 0..<8, using: &random) == 0 {
                isFresh[request] = false
                settings.flags = SamplingParameters.resetState
                let prompt = Int.random(in: 0...6, using: &random)
                settings.promptHistoryCount = Int32(prompt)
                for _ in 0..<prompt + 3 {
                    history.append(
                        Int32.random(in: -1...Int32(vocabularySize), using: &random))
                }
            }
            starts.append(Int32(history.count))
            all[request] = settings
        }
        if !pairs.isEmpty {
            let section = try record.add(.logitBias, LogitBias.self, count: pairs.count)
            for (index, pair) in pairs.enumerated() { section[index] = pair }
        }
        let startSection = try record.add(.historyStart, count: starts.count)
        for (index, start) in starts.enumerated() { startSection[index] = start }
        if !history.isEmpty {
            let section = try record.add(.history, count: history.count)
            for (index, token) in history.enumerated() { section[index] = token }
        }
    }

    private mutating func pick<Value>(_ values: [Value]) -> Value {
        values[Int.random(in: 0..<values.count, using: &random)]
    }
}

extension ConformanceSuite {
    private var samplerSizes: [Int] {
        isShort ? SamplerConformance.shortVocabularySizes : SamplerConformance.vocabularySizes
    }

    /// Names of the checks of the sampler.
    package var samplerNames: [String] { samplerSizes.map(Self.samplerName) }

    private static func samplerName(_ size: Int) -> String { "sample settings V=\(size)" }

    /// Checks the sampler with random settings.
    ///
    /// - Parameter isIncluded: Whether a check of this name runs; all by default.
    /// - Returns: One entry per size of the vocabulary.
    package func runSampler(
        where isIncluded: (String) -> Bool = { _ in true }
    ) async -> ConformanceReport {
        var report = ConformanceReport()
        for size in samplerSizes where isIncluded(Self.samplerName(size)) {
            var outcome = ConformanceReport.Entry.Outcome.passed
            do {
                var check = try SamplerConformance(
                    vocabularySize: size, seed: seed, catalog: catalog,
                    makeExecutor: makeExecutor)
                if let difference = try await check.run(isShort: isShort) {
                    outcome = .failed(difference)
                }
            } catch let refusal as PlanSketch.Refusal {
                outcome = .refused(refusal.reason)
            } catch {
                outcome = .failed("\(error)")
            }
            report.entries.append(
                ConformanceReport.Entry(
                    name: Self.samplerName(size), family: "sample", outcome: outcome,
                    largestError: 0, tolerance: 0))
        }
        return report
    }
}
