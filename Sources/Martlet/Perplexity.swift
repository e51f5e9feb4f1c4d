// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletEvaluation
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
        let chunks = try chunks(model, text)
        var sum = 0.0, squares = 0.0, counted = 0
        for (index, ids) in chunks.enumerated() {
            let logits = try Self.logits(model, ids)
            for position in context / 2..<context - 1 {
                let loss = Self.loss(logits[position], of: Int(ids[position + 1]))
                sum += loss
                squares += loss * loss
                counted += 1
            }
            observe(index + 1, chunks.count, exp(sum / Double(counted)))
        }
        let mean = sum / Double(counted)
        let variance = max(0, squares / Double(counted) - mean * mean)
        let error = (variance / Double(max(counted - 1, 1))).squareRoot()
        return Result(
            perplexity: exp(mean), standardError: error * exp(mean), chunkCount: chunks.count,
            tokenCount: counted)
    }

    /// Compares the predictions of two models at the positions that count.
    ///
    /// - Parameters:
    ///   - model: The model under test, loaded as for `evaluate`.
    ///   - base: What it is compared with: a model with the same vocabulary.
    ///   - observe: Called after each chunk with its number, their count, and the mean divergence.
    /// - Returns: The comparison, and how many chunks it covers.
    /// - Throws: `MartletError` if the text is too short, the vocabularies differ or a model fails.
    package func compare(
        _ model: LanguageModel, with base: LanguageModel, _ text: String,
        observe: (Int, Int, Double) -> Void = { _, _, _ in }
    ) throws -> (result: Divergence, chunkCount: Int) {
        guard model.vocabularySize == base.vocabularySize else {
            throw MartletError(
                .invalidArgument,
                "the models have \(model.vocabularySize) and \(base.vocabularySize) tokens",
                mend: "Compare engines of the same model")
        }
        let chunks = try chunks(model, text)
        guard try chunks == self.chunks(base, text) else {
            throw MartletError(
                .invalidArgument, "the models read the text as different tokens",
                mend: "Compare engines of the same model")
        }
        var result = Divergence()
        for (index, ids) in chunks.enumerated() {
            let (logits, baseLogits) = (try Self.logits(model, ids), try Self.logits(base, ids))
            for position in context / 2..<context - 1 {
                result.add(
                    base: baseLogits[position], logits: logits[position],
                    token: Int(ids[position + 1]))
            }
            observe(index + 1, chunks.count, result.mean)
        }
        return (result, chunks.count)
    }

    /// The text's tokens in chunks of `context`.
    private func chunks(_ model: LanguageModel, _ text: String) throws -> [[Int32]] {
        let tokens = try model.tokens(text)
        let available = tokens.count / context
        guard available > 0 else {
            throw MartletError(
                .invalidArgument,
                "the text has \(tokens.count) tokens, a chunk needs \(context)",
                mend: "Give a longer text or a smaller --context")
        }
        return (0..<min(chunkLimit ?? available, available)).map { chunk in
            var ids = Array(tokens[chunk * context..<(chunk + 1) * context])
            if let beginning = model.beginningToken { ids[0] = beginning }
            return ids
        }
    }

    /// Logits `[context, V]` of a chunk.
    private static func logits(_ model: LanguageModel, _ ids: [Int32]) throws -> [[Float]] {
        var settings = SamplingSettings()
        settings.maxTokens = 0
        settings.returnContextLogits = true
        let output = try model.generateBatch([GenerationRequest(prompt: ids, settings: settings)])[
            0]
        if let failure = output.failure { throw failure }
        return output.contextLogits
    }

    /// Negative log-likelihood of a token under logits.
    private static func loss(_ logits: [Float], of token: Int) -> Double {
        let largest = logits.max() ?? 0
        var sum = 0.0
        for value in logits { sum += Double(expf(value - largest)) }
        return log(sum) - Double(logits[token] - largest)
    }
}
