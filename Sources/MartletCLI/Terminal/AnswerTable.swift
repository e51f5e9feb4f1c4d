// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Answers of several prompts as rows for programs.
enum AnswerTable {
    /// One row an answer, counted from 1, in the order of the prompts.
    ///
    /// - Parameter prompts: What the user gave: text, or ids with commas.
    static func table(
        _ outputs: [GenerationOutput], prompts: [String], requests: [GenerationRequest],
        _ model: LanguageModel
    ) -> Table {
        let ofAnswers = requests.contains { $0.settings.logProbabilities != nil }
        let ofPrompts = requests.contains { $0.settings.promptLogProbabilities != nil }
        var table = Table(
            ["answer", "prompt", "text", "tokens", "finish", "prompt tokens", "seconds"]
                + (ofAnswers ? ["logprobs"] : []) + (ofPrompts ? ["prompt logprobs"] : []))
        for (index, output) in outputs.enumerated() {
            var row: [JSONValue] = [
                .int(index + 1), .string(prompts[index]),
                model.hasTokenizer ? .string(output.text) : .null,
                .array(output.tokens.map { .int(Int($0)) }),
                .string(output.finishReason.rawValue), .int(requests[index].prompt.count),
                .double((output.totalSeconds * 1e6).rounded() / 1e6),
            ]
            if ofAnswers { row.append(list(output.answerLogProbabilities)) }
            if ofPrompts { row.append(list(output.promptLogProbabilities)) }
            table.add(row)
        }
        return table
    }

    private static func list(_ entries: [PromptTokenLogProbability]) -> JSONValue {
        func pair(_ token: Int32, _ value: Float) -> JSONObject {
            JSONObject([
                ("token", .int(Int(token))),
                ("logprob", value.isFinite ? .double(Double(value)) : .null),
            ])
        }
        return .array(
            entries.map { entry in
                var object = pair(entry.token, entry.logProbability)
                object["likeliest"] = .array(
                    entry.topLogProbabilities.map { .object(pair($0.token, $0.logProbability)) })
                return .object(object)
            })
    }
}
