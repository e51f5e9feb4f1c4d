// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletBackend

/// Log-probabilities of drawn tokens, and of the likeliest ones beside them.
enum LogProbabilityTable {
    static func table(_ outputs: [GenerationOutput], _ model: LanguageModel) -> Table {
        func shown(_ token: Int32) -> String {
            model.hasTokenizer
                ? "\(token) \(JSONValue.string(model.text(of: token)).serialized())" : "\(token)"
        }
        var table = Table(["answer", "position", "token", "logprob", "likeliest"])
        for (index, output) in outputs.enumerated() {
            for (position, token) in output.tokens.enumerated() {
                func value(_ number: Float) -> String { Format.decimal(Double(number), 4) }
                let own =
                    output.logProbabilities.indices.contains(position)
                    ? value(output.logProbabilities[position]) : ""
                let top =
                    output.topLogProbabilities.indices.contains(position)
                    ? output.topLogProbabilities[position] : []
                table.add([
                    .int(index), .int(position), .string(shown(token)), .string(own),
                    .string(
                        top.map { "\(shown($0.token)) \(value($0.logProbability))" }
                            .joined(separator: ", ")),
                ])
            }
        }
        return table
    }
}
