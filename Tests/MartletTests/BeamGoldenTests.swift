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
        let request: GenerationRequest
        let answers: [[Int32]]
        let scores: [Double]
        /// Per answer the log-probabilities that its score is the sum of.
        let transitions: [[Double]]
    }

    private static func ids(_ value: JSONValue?) -> [Int32] {
        value?.array?.compactMap { $0.int.map(Int32.init(clamping:)) } ?? []
    }

    private static func numbers(_ value: JSONValue?) -> [Double] {
        value?.array?.compactMap(\.double) ?? []
    }

    private static func cases(_ file: String, of model: String) throws -> [Case] {
        let json = try JSONValue.parse(MappedFile.map(fixtures.appending(path: file).path))
        return try #require(json.array).filter { $0["model"]?.string == model }.map { item in
            let flags = item["settings"]
            var settings = SamplingSettings()
            settings.beamCount = flags?["num_beams"]?.int ?? 0
            settings.answerCount = settings.beamCount
            settings.maxTokens = flags?["max_new_tokens"]?.int ?? 0
            settings.minTokens = flags?["min_new_tokens"]?.int ?? 0
            settings.noRepeatNGram = flags?["no_repeat_ngram_size"]?.int ?? 0
            settings.repetitionPenalty = Float(flags?["repetition_penalty"]?.double ?? 1)
            settings.badWords = flags?["bad_words_ids"]?.array?.map(ids) ?? []
            // Nothing may follow these.
            for end in ids(item["dead_ends"]) {
                settings.badWords += (0..<Int32(item["vocabulary"]?.int ?? 0)).map { [end, $0] }
            }
            settings.beams.lengthPenalty = Float(flags?["length_penalty"]?.double ?? 1)
            settings.beams.stopping =
                switch flags?["early_stopping"] {
                case .bool(true): .early
                case .string("never"): .never
                default: .heuristic
                }
            settings.stopTokens = ids(item["stops"])
            settings.stopStrings = item["stop_strings"]?.array?.compactMap(\.string) ?? []
            settings.logProbabilities = item["transitions"] == nil ? nil : 3
            return Case(
                request: GenerationRequest(prompt: ids(item["prompt"]), settings: settings),
                answers: item["answers"]?.array?.map(ids) ?? [],
                scores: numbers(item["scores"]),
                transitions: item["transitions"]?.array?.map(numbers) ?? [])
        }
    }

    /// Every token is two of seven letters, as in the script.
    private struct Letters: TokenDecoding, TokenTextStream {
        static func text(_ token: Int32) -> String {
            let letters = Array("abcdefg")
            return String([letters[Int(token) % 7], letters[Int(token) / 7 % 7]])
        }

        func makeTextStream() -> any TokenTextStream { self }
        mutating func append(_ token: Int32) -> String { Self.text(token) }
        mutating func finish() -> String { "" }
    }

    private static func load(_ name: String) throws -> LanguageModel {
        var options = LoadOptions()
        options.activations = "exact"
        options.engineCache = nil
        options.maxContext = 128
        options.maxBatchSize = 20
        return try LanguageModel.load(fixtures.appending(path: name).path, options: options)
    }

    @Test(
        arguments: ["llama-gqa", "llama-mha", "qwen2"],
        [("beams.json", 27), ("beam-dead-ends.json", 6)])
    func findsWhatTransformersFinds(name: String, file: (name: String, count: Int)) throws {
        let cases = try Self.cases(file.name, of: name)
        #expect(cases.count == file.count)
        let outputs = try Self.load(name).generateBatch(cases.map(\.request))
        for (index, (expected, output)) in zip(cases, outputs).enumerated() {
            let found = [output] + output.alternatives
            #expect(found.map(\.tokens) == expected.answers, "case \(index)")
            for (answer, score) in zip(found, expected.scores) {
                #expect(abs(Double(answer.score ?? 0) - score) < 1e-3, "case \(index)")
            }
        }
    }

    @Test(arguments: ["llama-gqa", "llama-mha", "qwen2"])
    func stopsAndScoresAsTransformersDoes(name: String) throws {
        let cases = try Self.cases("beam-stops.json", of: name)
        #expect(cases.count == 8)
        let model = try Self.load(name)
        // The tiny models have no tokenizer; the model's own engine is idle.
        let engine = try InferenceEngine(executor: model.executor, decoding: Letters())
        let outputs = try engine.generateBatch(cases.map(\.request))
        for (index, (expected, output)) in zip(cases, outputs).enumerated() {
            let found = [output] + output.alternatives
            #expect(found.map(\.tokens) == expected.answers, "case \(index)")
            for (place, answer) in found.enumerated() {
                let distance = abs(Double(answer.score ?? 0) - expected.scores[place])
                #expect(distance < 1e-3, "case \(index)")
                let transitions = expected.transitions[place]
                #expect(answer.logProbabilities.count == transitions.count, "case \(index)")
                for (value, transition) in zip(answer.logProbabilities, transitions) {
                    #expect(abs(Double(value) - transition) < 1e-3, "case \(index)")
                }
                let settings = expected.request.settings
                let isStop = answer.tokens.last.map(settings.stopTokens.contains) ?? false
                let text = answer.tokens.dropLast(isStop ? 1 : 0).map(Letters.text).joined()
                let end = settings.stopStrings.compactMap { text.firstRange(of: $0)?.lowerBound }
                    .min()
                #expect(answer.text == text[..<(end ?? text.endIndex)], "case \(index)")
                #expect((answer.finishReason == .stopString) == (end != nil), "case \(index)")
            }
        }
    }
}
