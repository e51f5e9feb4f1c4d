// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// How answers are drawn and when they end.
struct SamplingOptions: ParsableArguments {
    @Option(
        name: [.customLong("max-output-len"), .customLong("max-tokens"), .short],
        parsing: .unconditional, help: "Most tokens of an answer.")
    var maxTokens = 256
    @Option(parsing: .unconditional, help: "Fewest tokens of an answer.")
    var minTokens = 0
    @OptionGroup var draw: DrawOptions
    @Option(help: "Text that ends the answer; may be repeated.")
    var stop: [String] = []
    @Option(
        parsing: .unconditionalSingleValue, help: "Token id that ends the answer; may be repeated.")
    var stopToken: [Int32] = []
    @Flag(help: "Do not end at the model's own end tokens.")
    var ignoreEos = false

    /// The settings as the library takes them.
    func settings(modelStops: [Int32]) throws -> SamplingSettings {
        var settings = try draw.settings()
        try draw.refuseWithoutTemperature(["--seed"])
        settings.maxTokens = maxTokens
        settings.minTokens = minTokens
        settings.stopStrings = stop
        settings.stopTokens = stopToken + (ignoreEos ? [] : modelStops)
        return settings
    }
}

/// How a token is drawn from logits.
struct DrawOptions: ParsableArguments {
    @Option(parsing: .unconditional, help: "0 takes the likeliest token; higher is more varied.")
    var temperature: Float = 0
    @Option(parsing: .unconditional, help: "Draw from the k likeliest tokens; 0 for all.")
    var topK = 0
    @Option(parsing: .unconditional, help: "Draw from the smallest set with this probability.")
    var topP: Float = 1
    @Option(
        parsing: .unconditional,
        help: "Draw from tokens at least this fraction as likely as the best.")
    var minP: Float = 0
    @Option(
        parsing: .unconditional, help: "Penalty on tokens seen in prompt and answer; 1 for none.")
    var repetitionPenalty: Float = 1
    @Option(parsing: .unconditional, help: "Subtracted from logits of tokens in the answer.")
    var presencePenalty: Float = 0
    @Option(
        parsing: .unconditional,
        help: "Subtracted from logits of tokens in the answer, per occurrence.")
    var frequencyPenalty: Float = 0
    @Option(
        parsing: .unconditionalSingleValue, help: "Bias of one token, as ID=VALUE; may be repeated."
    )
    var logitBias: [String] = []
    @Option(parsing: .unconditional, help: "Seed of the draws, 0 or more.")
    var seed: UInt64 = 0
    @OptionGroup var filters: FilterOptions

    /// Refuses flags of draws where none takes place.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the flag.
    func refuseWithoutTemperature(_ flags: [String]) throws {
        guard temperature == 0 else { return }
        try GivenFlags.refuse(
            flags, "at temperature 0, where the likeliest token is taken",
            mend: "Add --temperature, such as 0.8, or leave it out")
    }

    /// The settings as the library takes them.
    func settings() throws -> SamplingSettings {
        var settings = SamplingSettings()
        settings.temperature = temperature
        settings.topK = topK
        settings.topP = topP
        settings.minP = minP
        settings.repetitionPenalty = repetitionPenalty
        settings.presencePenalty = presencePenalty
        settings.frequencyPenalty = frequencyPenalty
        settings.seed = seed
        try filters.apply(to: &settings)
        if settings.topPDecay == 1 {
            try GivenFlags.refuse(
                ["--top-p-min", "--top-p-reset-id"], "without --top-p-decay",
                mend: "Add it, or leave this out")
        }
        let narrows =
            (2...Int(Int32.max)).contains(topK) || topP > 0 && topP < 1 || minP > 0 && minP <= 1
            || settings.typicalP < 1 || settings.topPDecay < 1
        if narrows {
            try refuseWithoutTemperature([
                "--top-k", "--top-p", "--min-p", "--typical-p", "--top-p-decay",
            ])
        }
        for text in logitBias {
            let parts = text.split(separator: "=")
            guard parts.count == 2, let id = Int32(parts[0]), let value = Float(parts[1]) else {
                throw MartletError(
                    .invalidArgument, "--logit-bias \(text) is not ID=VALUE",
                    mend: "Such as 42=-2.5, or 42=-inf for never")
            }
            settings.logitBias[id] = value
        }
        return settings
    }
}
