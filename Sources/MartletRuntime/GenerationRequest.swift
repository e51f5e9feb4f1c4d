// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletBackend
public import MartletCore

/// A prompt and how to answer it.
public struct GenerationRequest: Sendable, Hashable {
    /// Token ids of the prompt, at least one.
    public var prompt: [Int32]
    /// How the answer is drawn and when it ends.
    public var settings: SamplingSettings
    /// Requests reuse what was computed for the same beginning only where their salts agree; give each
    /// party its own where one must not learn from timing what another asked.
    public var cacheSalt = ""

    /// Pairs a prompt with settings.
    public init(prompt: [Int32], settings: SamplingSettings = SamplingSettings()) {
        self.prompt = prompt
        self.settings = settings
    }

    /// Checks prompt and settings.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the value and its range.
    public func validate(vocabularySize: Int) throws {
        if prompt.isEmpty {
            throw MartletError(
                .invalidArgument, "the prompt has no tokens, but must have at least 1")
        }
        if let index = prompt.firstIndex(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw MartletError(
                .invalidArgument,
                "prompt token \(index) is \(prompt[index]), but must be 0 to \(vocabularySize - 1)",
                context: ["index": "\(index)"])
        }
        try settings.validate(vocabularySize: vocabularySize)
    }
}

/// Why an answer ended.
public enum FinishReason: String, Sendable, Hashable, CaseIterable {
    /// A stop token was drawn.
    case stopToken
    /// The text reached a stop string.
    case stopString
    /// The most tokens asked for, or that the context holds.
    case length
    /// The caller ended it.
    case cancelled
    /// The device or the row failed.
    case error
}

/// News of one request: a token, or its end.
public struct GenerationEvent: Sendable {
    /// Position in the answer, counted from 0; nil in an event without a token.
    public var index: Int?
    /// Token drawn.
    public var token: Int32?
    /// Text that became certain; may be empty, and may belong to earlier tokens.
    public var text = ""
    /// Natural logarithm of the token's probability, where asked for.
    public var logProbability: Float?
    /// The likeliest tokens, best first, where asked for.
    public var topLogProbabilities: [TokenLogProbability] = []
    /// Logit rows of prompt positions that this step computed, in order, where asked for.
    public var contextLogits: [[Float]] = []
    /// `[V]` logits the token was drawn from, where asked for.
    public var generationLogits: [Float]?
    /// Set in the last event.
    public var finishReason: FinishReason?

    /// An event without content.
    public init() {}
}

/// A whole answer.
public struct GenerationOutput: Sendable {
    /// Tokens drawn, a final stop token included.
    public var tokens: [Int32] = []
    /// Text of the tokens, without stop token and stop string.
    public var text = ""
    /// Per token, where asked for.
    public var logProbabilities: [Float] = []
    /// Per token, best first, where asked for.
    public var topLogProbabilities: [[TokenLogProbability]] = []
    /// Per prompt position `[V]`, where asked for.
    public var contextLogits: [[Float]] = []
    /// Per token `[V]`, where asked for.
    public var generationLogits: [[Float]] = []
    /// Why the answer ended.
    public var finishReason: FinishReason = .error
    /// The failure behind `.error`.
    public var failure: MartletError?
    /// Seconds from submission to the first token; nil if there was none.
    public var firstTokenSeconds: Double?
    /// Seconds from submission to the end.
    public var totalSeconds: Double = 0

    /// An empty answer.
    public init() {}

    /// Adds an event.
    package mutating func append(_ event: GenerationEvent) {
        text += event.text
        contextLogits += event.contextLogits
        if let reason = event.finishReason { finishReason = reason }
        guard let token = event.token else { return }
        tokens.append(token)
        if let value = event.logProbability {
            logProbabilities.append(value)
            topLogProbabilities.append(event.topLogProbabilities)
        }
        if let row = event.generationLogits { generationLogits.append(row) }
    }
}
