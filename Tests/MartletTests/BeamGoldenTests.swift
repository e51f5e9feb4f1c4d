// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import Martlet
import MartletCore
import MartletRuntime
import Testing

/// Searches with beams find what transformers finds in the same tiny models
/// (`scripts/make-beam-golden.py`).
struct BeamGoldenTests {
    private static let fixtures = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Fixtures")

    private struct Case {
        let model: String
        let request: GenerationRequest
        let answers: [[Int32]]
        let scores: [Double]
    }

    private static func ids(_ value: JSONValue?) -> [Int32] {
        value?.array?.compactMap { $0.int.map(Int32.init(clamping:)) } ?? []
    }

    private static func cases() throws -> [Case] {
        let json = try JSONValue.parse(MappedFile.map(fixtures.appending(path: "beams.json").path))
        return try #require(json.array).map { item in
            let flags = item["settings"]
            var settings = SamplingSettings()
            settings.beamCount = flags?["num_beams"]?.int ?? 0
            settings.answerCount = settings.beamCount
            settings.maxTokens = flags?["max_new_tokens"]?.int ?? 0
            settings.minTokens = flags?["min_new_tokens"]?.int ?? 0
            settings.noRepeatNGram = flags?["no_repeat_ngram_size"]?.int ?? 0
            settings.repetitionPenalty = Float(flags?["repetition_penalty"]?.double ?? 1)
            settings.badWords = flags?["bad_words_ids"]?.array?.map(ids) ?? []
            settings.beams.lengthPenalty = Float(flags?["length_penalty"]?.double ?? 1)
            settings.beams.stopping =
                switch flags?["early_stopping"] {
                case .bool(true): .early
                case .string("never"): .never
                default: .heuristic
                }
            settings.stopTokens = ids(item["stops"])
            return Case(
                model: item["model"]?.string ?? "",
                request: GenerationRequest(prompt: ids(item["prompt"]), settings: settings),
                answers: item["answers"]?.array?.map(ids) ?? [],
                scores: item["scores"]?.array?.compactMap(\.double) ?? [])
        }
    }

    @Test(arguments: ["llama-gqa", "llama-mha", "qwen2"])
    func findsWhatTransformersFinds(name: String) throws {
        var options = LoadOptions()
        options.activations = "exact"
        options.engineCache = nil
        options.maxContext = 128
        options.maxBatchSize = 20
        let model = try LanguageModel.load(
            Self.fixtures.appending(path: name).path, options: options)
        let cases = try Self.cases().filter { $0.model == name }
        #expect(cases.count == 27)
        let outputs = try model.generateBatch(cases.map(\.request))
        for (index, (expected, output)) in zip(cases, outputs).enumerated() {
            let found = [output] + output.alternatives
            #expect(found.map(\.tokens) == expected.answers, "case \(index)")
            for (answer, score) in zip(found, expected.scores) {
                #expect(abs(Double(answer.score ?? 0) - score) < 1e-3, "case \(index)")
            }
        }
    }
}
