// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Perplexity of a text in chunks, by the rules of llama-perplexity.
///
/// Each chunk is evaluated alone; predictions of its second half count. Where the tokenizer begins
/// texts with a token, each chunk's first token is replaced by it.
public struct Perplexity: Sendable {
    /// What was found.
    public struct Result: Sendable {
        /// `exp(mean negative log-likelihood)`.
        public let perplexity: Double
        /// Standard error of the perplexity.
        public let standardError: Double
        /// Chunks evaluated.
        public let chunkCount: Int
        /// Predictions counted.
        public let tokenCount: Int
    }

    /// Tokens of a chunk.
    public let context: Int
    /// Most chunks; nil for all.
    public let chunkLimit: Int?

    /// Chooses the chunks.
    public init(context: Int = 512, chunkLimit: Int? = nil) {
        self.context = context
        self.chunkLimit = chunkLimit
    }

    /// Evaluates a text.
    ///
    /// - Parameters:
    ///   - model: Loaded with `maxLogitRows` of at least a step's tokens, `maxContext` above `context`.
    ///   - text: At least two chunks of text.
    ///   - observe: Called after each chunk with its number, their count, and the perplexity so far.
    /// - Throws: `MartletError` if the text is too short or the model fails.
    public func evaluate(
        _ model: LanguageModel, _ text: String,
        observe: (Int, Int, Double) -> Void = { _, _, _ in }
    ) throws -> Result {
        let tokens = try model.tokens(text)
        let available = tokens.count / context
        let count = min(chunkLimit ?? available, available)
        guard count > 0, available >= 1 else {
            throw MartletError(
                .invalidArgument,
                "the text has \(tokens.count) tokens, a chunk needs \(context)",
                mend: "Give a longer text or a smaller --context")
        }
        let beginning = model.beginningToken
        var sum = 0.0, squares = 0.0, counted = 0
        for chunk in 0..<count {
            var ids = Array(tokens[chunk * context..<(chunk + 1) * context])
            if let beginning { ids[0] = beginning }
            var settings = SamplingSettings()
            settings.maxTokens = 0
            settings.returnContextLogits = true
            let output = try model.generateBatch([
                GenerationRequest(prompt: ids, settings: settings)
            ])[0]
            if let failure = output.failure { throw failure }
            for position in context / 2..<context - 1 {
                let loss = Self.loss(output.contextLogits[position], of: Int(ids[position + 1]))
                sum += loss
                squares += loss * loss
                counted += 1
            }
            observe(chunk + 1, count, exp(sum / Double(counted)))
        }
        let mean = sum / Double(counted)
        let variance = max(0, squares / Double(counted) - mean * mean)
        let error = (variance / Double(max(counted - 1, 1))).squareRoot()
        return Result(
            perplexity: exp(mean), standardError: error * exp(mean), chunkCount: count,
            tokenCount: counted)
    }

    /// Negative log-likelihood of a token under logits.
    private static func loss(_ logits: [Float], of token: Int) -> Double {
        let largest = logits.max() ?? 0
        var sum = 0.0
        for value in logits { sum += Double(expf(value - largest)) }
        return log(sum) - Double(logits[token] - largest)
    }
}
