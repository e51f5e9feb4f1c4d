// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime
import Testing

struct SamplingSettingsTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        var value: String
        var set: @Sendable (inout SamplingSettings) -> Void
        var testDescription: String { "\(name) \(value)" }
    }

    static let wrong: [Case] = [
        Case(name: "temperature", value: "-1.0") { $0.temperature = -1 },
        Case(name: "temperature", value: "nan") { $0.temperature = .nan },
        Case(name: "temperature", value: "inf") { $0.temperature = .infinity },
        Case(name: "top-k", value: "-3") { $0.topK = -3 },
        Case(name: "top-k", value: "\(Int.max)") { $0.topK = .max },
        Case(name: "top-p", value: "0.0") { $0.topP = 0 },
        Case(name: "top-p", value: "1.5") { $0.topP = 1.5 },
        Case(name: "min-p", value: "-0.5") { $0.minP = -0.5 },
        Case(name: "typical-p", value: "nan") { $0.typicalP = .nan },
        Case(name: "repetition penalty", value: "0.0") { $0.repetitionPenalty = 0 },
        Case(name: "presence penalty", value: "inf") { $0.presencePenalty = .infinity },
        Case(name: "frequency penalty", value: "nan") { $0.frequencyPenalty = .nan },
        Case(name: "max tokens", value: "-1") { $0.maxTokens = -1 },
        Case(name: "min tokens", value: "17") { $0.minTokens = 17 },
        Case(name: "log-probabilities", value: "256") { $0.logProbabilities = 256 },
        Case(name: "stop token", value: "100") { $0.stopTokens = [4, 100] },
        Case(name: "logit bias token", value: "-1") { $0.logitBias = [-1: 0] },
        Case(name: "logit bias of token 5", value: "inf") { $0.logitBias = [5: .infinity] },
        Case(name: "stop string", value: "empty") { $0.stopStrings = ["x", ""] },
        Case(name: "no-repeat n-gram size", value: "-2") { $0.noRepeatNGram = -2 },
        Case(name: "length of a bad word", value: "0") { $0.badWords = [[1], []] },
        Case(name: "token of a bad word", value: "100") { $0.badWords = [[1, 100]] },
        Case(name: "top-p decay", value: "0.0") { $0.topPDecay = 0 },
        Case(name: "least top-p", value: "2.0") { $0.topPMinimum = 2 },
        Case(name: "top-p reset token", value: "-1") { $0.topPReset = -1 },
        Case(name: "count of answers", value: "0") { $0.answerCount = 0 },
        Case(name: "best-of", value: "2") {
            $0.answerCount = 3
            $0.bestOf = 2
        },
        Case(name: "count of beams", value: "257") { $0.beamCount = 257 },
        Case(name: "count of answers", value: "5") {
            $0.beamCount = 4
            $0.answerCount = 5
        },
        Case(name: "length penalty", value: "nan") {
            $0.beamCount = 2
            $0.beams.lengthPenalty = .nan
        },
        Case(name: "beam diversity", value: "-1.0") {
            $0.beamCount = 2
            $0.beams.diversity = -1
        },
        Case(name: "prompt log-probabilities", value: "-1") { $0.promptLogProbabilities = -1 },
        Case(
            name: "count of logit biases, stop tokens and bad words of one token", value: "400"
        ) {
            $0.stopTokens = [Int32](repeating: 1, count: 400)
        },
    ]

    @Test(arguments: wrong) func refusesValuesOutOfRange(_ c: Case) throws {
        var settings = SamplingSettings()
        try settings.validate(vocabularySize: 100)
        c.set(&settings)
        let error = try #require(throws: MartletError.self) {
            try settings.validate(vocabularySize: 100)
        }
        #expect(error.code == .invalidArgument)
        #expect(error.message.contains(c.name) && error.message.contains(c.value))
    }

    @Test func refusesWhatDoesNotGoWithBeams() throws {
        let changes: [@Sendable (inout SamplingSettings) -> Void] = [
            { $0.temperature = 0.5 }, { $0.bestOf = 4 },
        ]
        for change in changes {
            var settings = SamplingSettings()
            settings.beamCount = 3
            try settings.validate(vocabularySize: 100)
            change(&settings)
            let error = try #require(throws: MartletError.self) {
                try settings.validate(vocabularySize: 100)
            }
            #expect(error.code == .unsupported)
            #expect(error.message.contains("3 beams"))
        }
    }

    @Test func refusesPromptsThatAreNoTokens() throws {
        try GenerationRequest(prompt: [0, 99]).validate(vocabularySize: 100)
        for prompt in [[], [3, 100], [-1]] as [[Int32]] {
            #expect(throws: MartletError.self) {
                try GenerationRequest(prompt: prompt).validate(vocabularySize: 100)
            }
        }
    }
}
