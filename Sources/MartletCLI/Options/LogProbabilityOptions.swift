// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Which log-probabilities are reported.
struct LogProbabilityOptions: ParsableArguments {
    @Option(
        name: .customLong("logprobs"), parsing: .unconditional,
        help: "Report this many likeliest tokens with their log-probabilities.")
    var answer: Int?
    @Option(
        name: .customLong("prompt-logprobs"), parsing: .unconditional,
        help: "The same for each token of the prompt, from the second on.")
    var prompt: Int?

    /// Adds what is to be reported.
    func apply(to settings: inout SamplingSettings) {
        settings.logProbabilities = answer
        settings.promptLogProbabilities = prompt
    }
}
