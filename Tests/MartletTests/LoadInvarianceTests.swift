// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletBackend
import MartletRuntime
import Testing

/// A request's answer is the same whatever runs beside it, and however short memory is.
///
/// 200 requests of mixed lengths and settings on the CPU, each alone, against all at once.
@Suite(.serialized) struct LoadInvarianceTests {
    /// How all of them run at once.
    struct Setting: Sendable, CustomTestStringConvertible {
        let name: String
        var batch = 32
        var chunk = 512
        /// Part of the pages that a full batch takes; with less than all of them requests are paused.
        var memory = 1.0
        var preemption = PreemptionMode.automatic
        var reusesPrefixes = true
        var testDescription: String { name }
    }

    static let settings = [
        Setting(name: "one batch"),
        Setting(name: "chunks of 16", batch: 16, chunk: 16),
        Setting(name: "chunks of 61", chunk: 61),
        Setting(name: "no prefix cache", reusesPrefixes: false),
        Setting(name: "recomputed", memory: 0.25, preemption: .recompute),
        Setting(name: "swapped", memory: 0.25, preemption: .swap),
        Setting(
            name: "recomputed in chunks of 32, no prefix cache", chunk: 32, memory: 0.25,
            preemption: .recompute, reusesPrefixes: false),
    ]

    private static func load(_ change: (inout LoadOptions) -> Void) throws -> LanguageModel {
        let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "Fixtures")
        var options = LoadOptions()
        options.engineCache = nil
        options.maxContext = MixedRequests.maxContext
        change(&options)
        return try LanguageModel.load(fixtures.appending(path: "llama-gqa").path, options: options)
    }

    private static func requests(_ model: LanguageModel) -> [GenerationRequest] {
        var mixed = MixedRequests(seed: 7, vocabularySize: model.executor.vocabularySize)
        return mixed.next(200)
    }

    /// Tokens of all answers of each request, computed alone.
    private static let expected = Result {
        let model = try load {
            $0.maxBatchSize = 3
            $0.reusesPrefixes = false
        }
        return try requests(model).map { try answers(model.generateBatch([$0])[0]) }
    }

    private static func answers(_ output: GenerationOutput) throws -> [[Int32]] {
        if let failure = output.failure { throw failure }
        return ([output] + output.alternatives).map(\.tokens)
    }

    @Test(arguments: settings) func tokensDependOnNothingElse(_ setting: Setting) throws {
        let expected = try Self.expected.get()
        #expect(expected.count == 200 && Set(expected.flatMap { $0 }).count > 150)
        // Of 256 tokens that a row may take, these requests take about a third.
        let pages = Double(setting.batch) * 88 / 16
        let model = try Self.load {
            $0.maxBatchSize = setting.batch
            $0.maxTokensPerStep = setting.chunk
            $0.reusesPrefixes = setting.reusesPrefixes
            guard setting.memory < 1 else { return }
            $0.policy = .maxUtilization
            $0.preemption = setting.preemption
            // 2 layers, 2 heads of 16, keys and values of 4 bytes, 16 tokens.
            $0.kvCacheMemory = Int(pages * setting.memory) * 2 * 2 * 16 * 2 * 4 * 16
        }
        let outputs = try model.generateBatch(Self.requests(model))
        for (index, output) in outputs.enumerated() {
            #expect(try Self.answers(output) == expected[index], "request \(index)")
        }
        let statistics = model.inference.statistics
        // Rows are set aside for beams that are yet to come.
        #expect(statistics.largestBatch > 8)
        #expect((statistics.reusedTokenCount > 0) == setting.reusesPrefixes)
        if setting.memory < 1 {
            #expect(statistics.preemptionCount > 10)
            #expect((statistics.swapCount > 0) == (setting.preemption == .swap))
        }
    }
}
