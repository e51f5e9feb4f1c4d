// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// The flags behind the settings that the library refuses by names of its own.
enum SettingFlags {
    /// Flags of a setting, in the words of the library's messages.
    private static let flags: [String: [String]] = [
        "temperature": ["--temperature"], "a temperature": ["--temperature"],
        "top-k": ["--top-k"], "top-p": ["--top-p"], "min-p": ["--min-p"],
        "typical-p": ["--typical-p"], "repetition penalty": ["--repetition-penalty"],
        "presence penalty": ["--presence-penalty"], "frequency penalty": ["--frequency-penalty"],
        "max tokens": ["--max-output-len", "--max-tokens", "-m"], "min tokens": ["--min-tokens"],
        "log-probabilities": ["--logprobs"], "prompt log-probabilities": ["--prompt-logprobs"],
        "stop token": ["--stop-token"],
        "logit bias token": ["--logit-bias"], "no-repeat n-gram size": ["--no-repeat-ngram-size"],
        "token of a bad word": ["--bad-words-ids"], "top-p decay": ["--top-p-decay"],
        "least top-p": ["--top-p-min"], "top-p reset token": ["--top-p-reset-id"],
        "count of answers": ["--num-return-sequences"], "count of beams": ["--num-beams"],
        "best-of": ["--best-of"], "length penalty": ["--length-penalty"],
        "beam diversity": ["--beam-diversity"],
    ]

    /// Settings that a message about another one mentions.
    private static let mentions = [
        "max tokens": "max tokens (", "count of answers": "the count of answers",
        "count of beams": "the count of beams",
    ]

    /// The failure in the words of the command line: the flag as the user typed it.
    static func naming(_ error: MartletError) -> MartletError {
        guard let setting = error.context["setting"], let names = flags[setting],
            let flag = GivenFlags.first(of: names)
        else { return error }
        var copy = error
        copy.message = copy.message.replacing(setting, with: flag, maxReplacements: 1)
        for (other, words) in mentions where other != setting {
            guard let name = GivenFlags.first(of: flags[other] ?? []) ?? flags[other]?.first
            else { continue }
            let end = words.hasSuffix("(") ? " (" : ""
            copy.message = copy.message.replacing(words, with: name + end)
        }
        return copy
    }
}
