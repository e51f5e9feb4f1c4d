// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// What narrows the choice of a token besides the usual filters.
struct FilterOptions: ParsableArguments {
    @Option(
        parsing: .unconditional, help: "Draw from the most typical tokens with this probability.")
    var typicalP: Float = 1
    @Option(
        parsing: .unconditional,
        help: "No run of this many tokens occurs twice in prompt and answer; 0 for off.")
    var noRepeatNgramSize = 0
    @Option(
        parsing: .unconditionalSingleValue,
        help: "Token ids, such as 5,6, that the answer must not hold in a row; may be repeated.")
    var badWordsIds: [String] = []
    @Option(
        parsing: .unconditional, help: "Multiplies --top-p after each token; 1 for off.")
    var topPDecay: Float = 1
    @Option(parsing: .unconditional, help: "Least --top-p that --top-p-decay leads to.")
    var topPMin: Float = 1e-6
    @Option(
        parsing: .unconditional, help: "Token id after which a decaying --top-p starts anew.")
    var topPResetId: Int32?

    /// Adds the filters.
    func apply(to settings: inout SamplingSettings) throws {
        settings.typicalP = typicalP
        settings.noRepeatNGram = noRepeatNgramSize
        settings.topPDecay = topPDecay
        settings.topPMinimum = topPMin
        settings.topPReset = topPResetId
        settings.badWords = try badWordsIds.map { text in
            try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
                guard let id = Int32(part) else {
                    throw MartletError(
                        .invalidArgument, "'\(part)' in --bad-words-ids is no token id",
                        mend: "Write ids with commas, such as 5,6")
                }
                return id
            }
        }
    }
}

/// How many answers, and a search with beams.
struct SearchOptions: ParsableArguments {
    @Option(
        name: .customLong("num-return-sequences"), parsing: .unconditional,
        help: "Answers to each prompt, drawn with other seeds, or the best of the beams.")
    var answerCount = 1
    @Option(
        parsing: .unconditional,
        help: "Draw this many answers, give the likeliest of them (default: as many as are given).")
    var bestOf: Int?
    @Option(
        name: .customLong("num-beams"), parsing: .unconditional,
        help: "Search for the likeliest answer with this many beams.")
    var beamCount = 1
    @Option(
        parsing: .unconditional,
        help: "With --num-beams: exponent of the length that scores are divided by.")
    var lengthPenalty: Float?
    @Option(
        parsing: .unconditional,
        help: "With --num-beams: taken from a continuation for its rank in its beam.")
    var beamDiversity: Float?
    @Option(
        help:
            "With --num-beams, when the search ends: heuristic, early or never (as transformers).",
        completion: .list(BeamSettings.Stopping.allCases.map(\.rawValue)))
    var earlyStopping: String?

    /// Adds the search.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a flag of beams without beams.
    func apply(to settings: inout SamplingSettings) throws {
        let given = [
            ("--length-penalty", lengthPenalty != nil), ("--beam-diversity", beamDiversity != nil),
            ("--early-stopping", earlyStopping != nil),
        ].first(where: \.1)
        if let given, beamCount == 1 {
            throw MartletError(
                .invalidArgument, "\(given.0) has no effect without beams",
                mend: "Give --num-beams 4, or leave it out")
        }
        if beamCount > 1, settings.maxTokens == 0 {
            throw MartletError(
                .invalidArgument, "max tokens is 0, but --num-beams needs at least 1",
                context: ["setting": "max tokens"])
        }
        settings.answerCount = answerCount
        settings.bestOf = bestOf
        settings.beamCount = beamCount
        settings.beams.lengthPenalty = lengthPenalty ?? 1
        settings.beams.diversity = beamDiversity ?? 0
        guard let earlyStopping else { return }
        guard let stopping = BeamSettings.Stopping(rawValue: earlyStopping) else {
            throw MartletError(
                .invalidArgument, "--early-stopping \(earlyStopping) is not known",
                mend: "Use heuristic, early or never")
        }
        settings.beams.stopping = stopping
    }

    /// Refuses several answers that would be one and the same.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the flag.
    func refuseCopies(_ settings: SamplingSettings) throws {
        guard settings.temperature == 0, beamCount == 1, max(bestOf ?? 1, answerCount) > 1
        else { return }
        let flag = bestOf.map { "--best-of is \($0)" } ?? "--num-return-sequences is \(answerCount)"
        throw MartletError(
            .invalidArgument, "\(flag), but at temperature 0 all answers are the same",
            mend: "Give --temperature above 0, or --num-beams" + (bestOf == nil ? "" : " instead"))
    }
}
