// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Log-probabilities of tokens, and of the likeliest ones beside them, for people.
enum LogProbabilityTable {
    /// Tokens of all answers, counted from 1 as they are printed: prompts that failed have none.
    static func answers(_ outputs: [GenerationOutput], _ model: LanguageModel) -> Table {
        let answers = outputs.filter { $0.failure == nil }.flatMap { [$0] + $0.alternatives }
        return table("answer", answers.map(\.answerLogProbabilities), first: 0, model)
    }

    /// Tokens of all prompts, counted from 1 as errors do, from the second token of each on.
    static func prompts(_ outputs: [GenerationOutput], _ model: LanguageModel) -> Table {
        table("prompt", outputs.map(\.promptLogProbabilities), first: 1, model)
    }

    private static func table(
        _ name: String, _ lists: [[PromptTokenLogProbability]], first: Int, _ model: LanguageModel
    ) -> Table {
        func shown(_ token: Int32) -> String {
            model.hasTokenizer
                ? "\(token) \(JSONValue.string(model.text(of: token)).serialized())" : "\(token)"
        }
        func shown(_ value: Float) -> String { Format.decimal(Double(value), 4) }
        var table = Table([name, "position", "token", "logprob", "likeliest"])
        for (index, list) in lists.enumerated() {
            for (place, entry) in list.enumerated() {
                let likeliest = entry.topLogProbabilities.map {
                    "\(shown($0.token)) \(shown($0.logProbability))"
                }
                table.add([
                    .int(index + 1), .int(first + place), .string(shown(entry.token)),
                    .string(shown(entry.logProbability)),
                    .string(likeliest.joined(separator: ", ")),
                ])
            }
        }
        return table
    }
}

extension GenerationOutput {
    /// Log-probabilities of the answer's tokens, in the form of the prompt's.
    var answerLogProbabilities: [PromptTokenLogProbability] {
        zip(tokens, zip(logProbabilities, topLogProbabilities)).map {
            PromptTokenLogProbability(
                token: $0, logProbability: $1.0, topLogProbabilities: $1.1)
        }
    }
}
