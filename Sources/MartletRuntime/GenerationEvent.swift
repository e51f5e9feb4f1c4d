// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletBackend
public import MartletCore

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

/// Log-probability of a token of the prompt after those before it.
public struct PromptTokenLogProbability: Sendable, Hashable {
    /// Token id.
    public var token: Int32
    /// Natural logarithm of its probability.
    public var logProbability: Float
    /// The likeliest tokens in its place, best first.
    public var topLogProbabilities: [TokenLogProbability]

    /// Gathers the values.
    public init(
        token: Int32, logProbability: Float, topLogProbabilities: [TokenLogProbability] = []
    ) {
        self.token = token
        self.logProbability = logProbability
        self.topLogProbabilities = topLogProbabilities
    }
}

/// News of one request: a token, or its end.
public struct GenerationEvent: Sendable {
    /// Which of the request's answers the event belongs to, counted from 0.
    public var choice = 0
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
    /// Log-probabilities of prompt tokens that this step computed, from the second token on, in
    /// order, where asked for.
    public var promptLogProbabilities: [PromptTokenLogProbability] = []
    /// `[V]` logits the token was drawn from, where asked for.
    public var generationLogits: [Float]?
    /// Score of an answer found with beams, in its last event.
    public var score: Float?
    /// Rows of the plan's named outputs, where asked for.
    package var namedOutputs: [String: [[Float]]] = [:]
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
    /// Per prompt token from the second on, where asked for.
    public var promptLogProbabilities: [PromptTokenLogProbability] = []
    /// Per token `[V]`, where asked for.
    public var generationLogits: [[Float]] = []
    /// Log-probability over the power of the length, of an answer found with beams.
    public var score: Float?
    /// The request's further answers, best or first drawn first.
    public var alternatives: [GenerationOutput] = []
    /// Rows by name of the plan's named outputs, where asked for.
    package var namedOutputs: [String: [[Float]]] = [:]
    /// Why the answer ended.
    public var finishReason: FinishReason = .error
    /// The failure behind `.error`.
    public var failure: MartletError?
    /// Seconds from submission to the first token; nil if there was none.
    public var firstTokenSeconds: Double? { tokenSeconds.first }
    /// Seconds from submission to each token.
    public var tokenSeconds: [Double] = []
    /// Seconds from submission to the end.
    public var totalSeconds: Double = 0

    /// An empty answer.
    public init() {}

    /// Adds an event.
    package mutating func append(_ event: GenerationEvent) {
        text += event.text
        contextLogits += event.contextLogits
        promptLogProbabilities += event.promptLogProbabilities
        namedOutputs.merge(event.namedOutputs) { $1 }
        if let score = event.score { self.score = score }
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
