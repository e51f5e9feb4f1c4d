// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Answers of several prompts as rows for programs.
enum AnswerTable {
    /// One row an answer, in the order of the prompts.
    ///
    /// - Parameter prompts: What the user gave: text, or ids with commas.
    static func table(
        _ outputs: [GenerationOutput], prompts: [String], requests: [GenerationRequest],
        _ model: LanguageModel
    ) -> Table {
        let hasLogProbabilities = outputs.contains { !$0.logProbabilities.isEmpty }
        var table = Table(
            ["answer", "prompt", "text", "tokens", "finish", "prompt tokens", "seconds"]
                + (hasLogProbabilities ? ["logprobs"] : []))
        for (index, output) in outputs.enumerated() {
            var row: [JSONValue] = [
                .int(index), .string(prompts[index]),
                model.hasTokenizer ? .string(output.text) : .null,
                .array(output.tokens.map { .int(Int($0)) }),
                .string(output.finishReason.rawValue), .int(requests[index].prompt.count),
                .double((output.totalSeconds * 1e6).rounded() / 1e6),
            ]
            if hasLogProbabilities { row.append(logProbabilities(of: output)) }
            table.add(row)
        }
        return table
    }

    private static func logProbabilities(of output: GenerationOutput) -> JSONValue {
        func pair(_ token: Int32, _ value: Float) -> JSONObject {
            JSONObject([
                ("token", .int(Int(token))),
                ("logprob", value.isFinite ? .double(Double(value)) : .null),
            ])
        }
        return .array(
            zip(output.tokens, output.logProbabilities).enumerated().map { position, item in
                var entry = pair(item.0, item.1)
                let likeliest =
                    output.topLogProbabilities.indices.contains(position)
                    ? output.topLogProbabilities[position] : []
                entry["likeliest"] = .array(
                    likeliest.map { .object(pair($0.token, $0.logProbability)) })
                return .object(entry)
            })
    }
}
