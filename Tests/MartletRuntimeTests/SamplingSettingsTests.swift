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
        Case(name: "count of logit biases and stop tokens", value: "400") {
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

    @Test func refusesPromptsThatAreNoTokens() throws {
        try GenerationRequest(prompt: [0, 99]).validate(vocabularySize: 100)
        for prompt in [[], [3, 100], [-1]] as [[Int32]] {
            #expect(throws: MartletError.self) {
                try GenerationRequest(prompt: prompt).validate(vocabularySize: 100)
            }
        }
    }
}
