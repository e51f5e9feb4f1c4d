// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// How the tokens of an answer are drawn, and when it ends.
public struct SamplingSettings: Sendable, Hashable {
    /// Logits are divided by it; 0 takes the most likely token.
    public var temperature: Float = 0
    /// Keep the k most likely tokens; 0 for all.
    public var topK: Int = 0
    /// Keep the smallest set of tokens with this probability; 1 for all.
    public var topP: Float = 1
    /// Keep tokens at least this fraction as likely as the best; 0 for all.
    public var minP: Float = 0
    /// Keep the most typical tokens with this probability; 1 for all.
    public var typicalP: Float = 1
    /// Divides positive and multiplies negative logits of tokens in prompt and answer; 1 for off.
    public var repetitionPenalty: Float = 1
    /// Subtracted once from logits of tokens in the answer.
    public var presencePenalty: Float = 0
    /// Subtracted from logits of tokens in the answer, per occurrence.
    public var frequencyPenalty: Float = 0
    /// No run of so many tokens occurs twice in prompt and answer; 0 for off.
    public var noRepeatNGram: Int = 0
    /// Runs of tokens that the answer must not complete.
    public var badWords: [[Int32]] = []
    /// After each token top-p is multiplied by it, down to `topPMinimum`; 1 for off.
    public var topPDecay: Float = 1
    /// Least top-p that decay leads to.
    public var topPMinimum: Float = 1e-6
    /// A token after which a decaying top-p starts anew.
    public var topPReset: Int32?
    /// Closures that change logits, in order, before all other settings.
    public var processors: [LogitsProcessor] = []
    /// Added to logits by token id; `-infinity` forbids a token.
    public var logitBias: [Int32: Float] = [:]
    /// Seed of the draws: the same seed gives the same tokens, whatever else runs.
    public var seed: UInt64 = 0
    /// Texts that end the answer; they are not part of it.
    public var stopStrings: [String] = []
    /// Token ids that end the answer; the id is reported, its text is not.
    public var stopTokens: [Int32] = []
    /// Most tokens of the answer; fewer where the context ends.
    ///
    /// 0 computes the prompt only.
    public var maxTokens: Int = 16
    /// Before so many tokens, stop tokens are forbidden and stop strings pass unnoticed.
    public var minTokens: Int = 0
    /// How many of the likeliest tokens to report besides the drawn one's log-probability.
    ///
    /// 0 to 255; nil for no log-probabilities. They are the model's own, whatever the settings; with
    /// beams those that the search adds up, changed by biases, penalties and closures.
    public var logProbabilities: Int?
    /// How many of the likeliest tokens to report for each prompt position besides the prompt's own.
    ///
    /// 0 to 255; nil for no log-probabilities of the prompt.
    public var promptLogProbabilities: Int?
    /// Answers to return: drawn with other seeds, or the best of a search with beams.
    public var answerCount = 1
    /// Answers to draw, of which the likeliest per token are returned; nil for as many as are.
    public var bestOf: Int?
    /// Beams of a search for the likeliest answer; 1 draws tokens instead.
    public var beamCount = 1
    /// How a search with beams ranks and ends.
    public var beams = BeamSettings()
    /// Return the logits of each prompt position.
    public var returnContextLogits = false
    /// Return the logits that each answer token was drawn from.
    ///
    /// With beams those of all tokens that may yet be in an answer are held until the end.
    public var returnGenerationLogits = false

    /// Greedy, at most 16 tokens.
    public init() {}

    /// Checks each setting's range.
    ///
    /// - Parameter vocabularySize: V; ids must be below it.
    /// - Throws: `MartletError` `.invalidArgument` naming the setting, its value and its range.
    public func validate(vocabularySize: Int) throws {
        try Self.require(
            temperature >= 0 && temperature.isFinite, "temperature", temperature,
            "finite and 0 or more")
        try Self.require(
            topK >= 0 && topK <= Int(Int32.max), "top-k", topK, "0 (off) to \(Int32.max)")
        try Self.require(topP > 0 && topP <= 1, "top-p", topP, "above 0, at most 1")
        try Self.require(minP >= 0 && minP <= 1, "min-p", minP, "0 to 1")
        try Self.require(typicalP > 0 && typicalP <= 1, "typical-p", typicalP, "above 0, at most 1")
        try Self.require(
            repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetition penalty",
            repetitionPenalty, "above 0")
        try Self.require(
            presencePenalty.isFinite, "presence penalty", presencePenalty, "a finite number")
        try Self.require(
            frequencyPenalty.isFinite, "frequency penalty", frequencyPenalty, "a finite number")
        try Self.require(maxTokens >= 0, "max tokens", maxTokens, "0 or more")
        try Self.require(
            minTokens >= 0 && minTokens <= maxTokens, "min tokens", minTokens,
            "0 to max tokens (\(maxTokens))")
        for (name, count) in [
            ("log-probabilities", logProbabilities),
            ("prompt log-probabilities", promptLogProbabilities),
        ] {
            guard let count else { continue }
            try Self.require((0...255).contains(count), name, count, "0 to 255")
        }
        for token in stopTokens {
            try Self.require(
                token >= 0 && Int(token) < vocabularySize, "stop token", token,
                "0 to \(vocabularySize - 1)")
        }
        try validateBias(vocabularySize: vocabularySize)
        try validateRuns(vocabularySize: vocabularySize)
        try validateAnswers()
        if stopStrings.contains(where: \.isEmpty) {
            throw MartletError(
                .invalidArgument, "a stop string is empty; it would end every answer")
        }
    }

    static func require<Value>(
        _ holds: Bool, _ name: String, _ value: Value, _ range: String
    ) throws {
        guard !holds else { return }
        throw MartletError(
            .invalidArgument, "\(name) is \(value), but must be \(range)",
            context: ["setting": name])
    }
}
