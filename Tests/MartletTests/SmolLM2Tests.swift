// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletCore
import MartletHub
import MartletRuntime
import Testing

/// The demo model, if the hub's cache holds it (`martlet pull smollm2`).
private let modelPath: String? = {
    let hub = Hub()
    return try? hub.lookup(hub.reference("smollm2"))
}()

/// What a real model must show; skipped where it was not pulled.
@Suite(
    .enabled(if: modelPath != nil, "run `martlet pull smollm2` first"), .serialized)
struct SmolLM2Tests {
    private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Fixtures")

    private func load(_ change: (inout LoadOptions) -> Void = { _ in }) throws -> LanguageModel {
        var options = LoadOptions()
        options.activations = "exact"
        options.engineCache = nil
        options.maxContext = 512
        change(&options)
        return try LanguageModel.load(try #require(modelPath), options: options)
    }

    private struct Case {
        let ids: [Int32]
        let promptCount: Int
        let argmax: [Int]
        let gaps: [Double]
    }

    private func cases() throws -> [Case] {
        let file = Self.fixtures.appending(path: "smollm2/teacher-forced.json")
        let json = try JSONValue.parse(MappedFile.map(file.path))
        return try #require(json.array).map { item in
            func ints(_ key: String) -> [Int] { item[key]?.array?.compactMap(\.int) ?? [] }
            return Case(
                ids: ints("ids").map { Int32($0) }, promptCount: item["promptCount"]?.int ?? 0,
                argmax: ints("argmax"),
                gaps: item["gaps"]?.array?.compactMap(\.double) ?? [])
        }
    }

    @Test func argmaxAlongTransformersTextIsTheSame() throws {
        let model = try load { $0.maxLogitRows = 512 }
        let cases = try cases()
        var settings = SamplingSettings()
        settings.maxTokens = 0
        settings.returnContextLogits = true
        let outputs = try model.generateBatch(
            cases.map { GenerationRequest(prompt: $0.ids, settings: settings) })
        #expect(cases.count == 10)
        for (item, output) in zip(cases, outputs) {
            try #require(output.contextLogits.count == item.ids.count)
            for (position, row) in output.contextLogits.enumerated()
            where position >= item.promptCount - 1 && item.gaps[position] >= 1e-3 {
                let best = row.indices.max { row[$0] < row[$1] } ?? -1
                #expect(best == item.argmax[position], "position \(position)")
            }
        }
    }

    @Test(arguments: [(1, 512), (2, 512), (2, 7)])
    func tokensDoNotDependOnBatchThreadsOrChunks(threads: Int, chunk: Int) throws {
        let prompts = try cases().prefix(8).map { Array($0.ids.prefix($0.promptCount)) }
        var settings = SamplingSettings()
        settings.maxTokens = 24
        let requests = prompts.map { GenerationRequest(prompt: $0, settings: settings) }
        let alone = try load { $0.threadCount = 2 }
        let expected = try requests.map { try alone.generateBatch([$0])[0].tokens }
        let model = try load {
            $0.threadCount = threads
            $0.maxTokensPerStep = max(chunk, 8)
        }
        #expect(try model.generateBatch(requests).map(\.tokens) == expected)
    }

    /// Figures of this slice of WikiText-2, 8 chunks of 512: llama.cpp's Q4_1 gives 21.6321.
    @Test(arguments: [("exact", 21.5485), ("int8g64", 21.6488)])
    func perplexityIsAsRecorded(activations: String, figure: Double) throws {
        let model = try load {
            $0.activations = activations
            $0.maxLogitRows = 512
            $0.maxContext = 513
        }
        let file = Self.fixtures.appending(path: "perplexity/wikitext2-slice.txt")
        let text = try MappedFile.map(file.path).withUnsafeBytes {
            String(decoding: $0, as: UTF8.self)
        }
        let result = try Perplexity(context: 512, chunkLimit: 8).evaluate(model, text)
        #expect(result.chunkCount == 8)
        #expect(abs(result.perplexity / figure - 1) < 1e-3)
    }
}
