// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

extension SamplingSettings {
    /// Whether draws depend on what was seen before.
    var hasPenalties: Bool {
        repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0
    }

    /// Whether the tokens before decide which ones a draw may not give.
    var bansTokens: Bool { noRepeatNGram > 0 || badWords.contains { $0.count > 1 } }

    /// Whether each draw needs the tokens before it on the host.
    var needsTokens: Bool {
        beamCount > 1 || drawsOnHost || bansTokens || (topPDecay != 1 && topPReset != nil)
    }

    /// Whether logits come to the host, which draws: closures, and beams with any setting that
    /// changes logits.
    var drawsOnHost: Bool {
        guard beamCount > 1 else { return !processors.isEmpty }
        return !processors.isEmpty || hasPenalties || bansTokens || !logitBias.isEmpty
            || !badWords.isEmpty || (minTokens > 0 && !stopTokens.isEmpty)
            || beamCandidateCount > 255
    }

    /// Continuations that a search with beams compares in each step: enough to go on with where
    /// all stop tokens are among them.
    var beamCandidateCount: Int { max(2, 1 + stopTokens.count) * beamCount }

    /// Continuations that a step lists for each beam: those and as many as are reported.
    var beamRowCount: Int { max(beamCandidateCount, logProbabilities ?? 0) }

    /// Biases in order of id; bad words of one token among them.
    var biases: [LogitBias] {
        var all = logitBias
        for word in badWords where word.count == 1 { all[word[0]] = -.infinity }
        return all.map { LogitBias(token: $0.key, bias: $0.value) }.sorted { $0.token < $1.token }
    }

    /// Tokens that must not follow: the last ones of forbidden runs that are otherwise there.
    ///
    /// Each at most once, ascending.
    func bannedTokens(after tokens: [Int32]) -> [Int32] {
        var banned: Set<Int32> = []
        let length = noRepeatNGram
        if length > 0, tokens.count + 1 >= length {
            let head = tokens[(tokens.count - length + 1)...]
            for start in 0..<max(tokens.count - length + 1, 0)
            where tokens[start..<start + length - 1].elementsEqual(head) {
                banned.insert(tokens[start + length - 1])
            }
        }
        for word in badWords where word.count > 1 && word.count <= tokens.count + 1 {
            if tokens.suffix(word.count - 1).elementsEqual(word.dropLast()) {
                banned.insert(word[word.count - 1])
            }
        }
        return banned.sorted()
    }

    /// Top-p of the draw at a position of the answer.
    func topP(at position: Int, answer: ArraySlice<Int32>) -> Float {
        var decays = position
        if let reset = topPReset, let last = answer.lastIndex(of: reset) {
            decays = answer.endIndex - 1 - last
        }
        var result = topP
        // The product of the steps, as a device that keeps top-p would have it.
        for _ in 0..<decays where result > topPMinimum {
            result = max(result * topPDecay, topPMinimum)
        }
        return result
    }

    /// The step record's form for the draw at one output position.
    func parameters(outputPosition: Int) -> SamplingParameters {
        var result = SamplingParameters()
        result.seedLow = UInt32(truncatingIfNeeded: seed)
        result.seedHigh = UInt32(truncatingIfNeeded: seed >> 32)
        result.outputPosition = UInt32(clamping: outputPosition)
        guard beamCount == 1 else {
            // Beams take the likeliest continuations of the model's own row.
            if !drawsOnHost { result.logProbabilityCount = Int32(clamping: beamRowCount) }
            return result
        }
        result.temperature = temperature
        result.topK = Int32(clamping: topK)
        result.topP = topP
        result.minP = minP
        result.typicalP = typicalP
        result.repetitionPenalty = repetitionPenalty
        result.presencePenalty = presencePenalty
        result.frequencyPenalty = frequencyPenalty
        result.logProbabilityCount = logProbabilities.map { Int32(clamping: $0) } ?? -1
        return result
    }
}
