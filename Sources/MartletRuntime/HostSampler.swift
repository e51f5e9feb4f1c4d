// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Draws tokens of requests whose logits come to the host: those with closures, and beams whose
/// logits are changed.
///
/// The same sampler as on the device, so that a closure that changes nothing changes no token.
struct HostSampler {
    private var sampler: Sampler
    private var state: SamplerState

    init(vocabularySize: Int) {
        sampler = Sampler(vocabularySize: vocabularySize)
        state = SamplerState(vocabularySize: vocabularySize)
    }

    /// What a draw goes by besides its logits.
    struct Draw {
        let facts: RequestFacts
        /// Prompt and answer so far.
        let tokens: [Int32]

        /// Position in the answer of the token to draw.
        var outputIndex: Int { tokens.count - facts.request.prompt.count }

        var parameters: SamplingParameters {
            var result = facts.parameters
            result.outputPosition = UInt32(clamping: outputIndex)
            if facts.decaysTopP {
                result.topP = facts.request.settings.topP(
                    at: outputIndex, answer: tokens[facts.request.prompt.count...])
            }
            return result
        }

        var biases: [LogitBias] {
            let settings = facts.request.settings
            var banned = settings.bansTokens ? settings.bannedTokens(after: tokens) : []
            if outputIndex < facts.minTokens { banned += facts.stopTokens }
            return facts.biases + banned.map { LogitBias(token: $0, bias: -.infinity) }
        }
    }

    /// Draws a token from a row of logits.
    ///
    /// - Parameter top: Becomes the likeliest tokens of the row as the model gave it.
    /// - Throws: `MartletError` `.invalidArgument` if a closure fails or gives what is no logit.
    mutating func draw(
        _ logits: [Float], _ draw: Draw, top: inout [TokenLogProbability]
    ) throws -> SampledToken {
        guard logits.allSatisfy(\.isFinite) else {
            return SampledToken(token: -1, status: .nonFinite, logProbability: 0)
        }
        var row = logits
        try process(&row, draw)
        var biases = draw.biases
        for index in row.indices where row[index] == -.infinity {
            // Forbidden by a closure: the sampler takes finite logits and biases that are not.
            row[index] = 0
            biases.append(LogitBias(token: Int32(clamping: index), bias: -.infinity))
        }
        var parameters = draw.parameters
        let wanted = parameters.logProbabilityCount
        parameters.logProbabilityCount = -1
        remember(draw)
        var result = sampler.sample(
            row, parameters: parameters, bias: biases, state: state, top: &top)
        if wanted >= 0, result.token >= 0 {
            result.logProbability =
                logits.withUnsafeBufferPointer {
                    sampler.logProbability($0, of: result.token, count: Int(wanted), top: &top)
                } ?? 0
        }
        return result
    }

    /// The likeliest continuations of a beam; nil if logits are not finite.
    ///
    /// Closures, biases and penalties change log-probabilities, which are not normalised again.
    /// - Throws: `MartletError` `.invalidArgument` if a closure fails or gives what is no logit.
    mutating func continuations(_ logits: [Float], _ draw: Draw) throws -> [TokenLogProbability]? {
        var row = logits
        guard sampler.normalise(&row) else { return nil }
        try process(&row, draw)
        remember(draw)
        var parameters = draw.parameters
        let settings = draw.facts.request.settings
        parameters.repetitionPenalty = settings.repetitionPenalty
        parameters.presencePenalty = settings.presencePenalty
        parameters.frequencyPenalty = settings.frequencyPenalty
        draw.biases.withUnsafeBufferPointer {
            sampler.apply(parameters, bias: $0, state: state, to: &row)
        }
        return sampler.greatest(row, count: settings.beamRowCount)
    }

    /// Log-probability of a token, and the likeliest ones; nil if logits are not finite.
    mutating func rank(
        _ logits: [Float], of token: Int32, count: Int
    ) -> PromptTokenLogProbability? {
        var top: [TokenLogProbability] = []
        let value = logits.withUnsafeBufferPointer {
            sampler.logProbability($0, of: token, count: count, top: &top)
        }
        return value.map {
            PromptTokenLogProbability(token: token, logProbability: $0, topLogProbabilities: top)
        }
    }

    private mutating func remember(_ draw: Draw) {
        guard draw.facts.request.settings.hasPenalties else { return }
        state.reset()
        for (index, token) in draw.tokens.enumerated() {
            if index < draw.facts.request.prompt.count {
                state.addPrompt(token)
            } else {
                state.addGenerated(token)
            }
        }
    }

    private func process(_ row: inout [Float], _ draw: Draw) throws {
        let prompt = draw.facts.request.prompt
        for processor in draw.facts.request.settings.processors {
            let context = LogitsProcessor.Context(
                prompt: prompt, answer: Array(draw.tokens.dropFirst(prompt.count)))
            let count = row.count
            do {
                try processor(context, &row)
            } catch {
                throw MartletError(
                    .invalidArgument, "a logits processor failed at token \(draw.outputIndex)",
                    cause: error)
            }
            let bad = row.firstIndex { $0.isNaN || $0 == .infinity }
            guard bad == nil, row.count == count else {
                throw MartletError(
                    .invalidArgument,
                    bad.map { "a logits processor made logit \($0) \(row[$0])" }
                        ?? "a logits processor made \(row.count) logits of \(count)",
                    mend: "Give finite numbers, or -infinity to forbid a token")
            }
        }
    }
}
