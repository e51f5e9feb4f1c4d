// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The token drawn from one row of logits.
package struct SampledToken: Sendable, Hashable {
    /// Token id; -1 if none could be drawn.
    package var token: Int32
    /// State of the row.
    package var status: RowStatus
    /// Natural logarithm of the token's probability in the unmodified row; 0 if not asked for.
    package var logProbability: Float

    /// Gathers what is known of a row.
    package init(token: Int32, status: RowStatus, logProbability: Float) {
        self.token = token
        self.status = status
        self.logProbability = logProbability
    }
}

/// Draws tokens from rows of logits; the reference that every backend's sampler equals.
///
/// Order of work: mask and bias, repetition then presence and frequency penalties, temperature,
/// top-k, top-p, min-p, typical-p, draw by Philox(seed, position). Each filter works on what the
/// one before left, renormalised. Equal logits rank by rising id: the result is one certain token.
/// Log-probabilities are those of the row as the model gave it, whatever the settings.
///
/// Owned by one thread; scratch memory of 20 V bytes is reused, so a row allocates nothing.
package struct Sampler: Sendable {
    /// V.
    package let vocabularySize: Int
    var adjusted: [Float]
    var candidates: SamplerCandidates

    /// Reserves scratch memory for rows of V logits.
    package init(vocabularySize: Int) {
        self.vocabularySize = vocabularySize
        adjusted = [Float](repeating: 0, count: vocabularySize)
        candidates = SamplerCandidates(vocabularySize: vocabularySize)
    }

    /// Draws one token.
    ///
    /// - Parameters:
    ///   - row: `[V]` logits, left unchanged.
    ///   - parameters: How to draw; `biasStart` and `biasCount` are not looked at.
    ///   - bias: Numbers added to single logits.
    ///   - mask: `[V/32]` allowed tokens, a set bit for allowed; nil if all are.
    ///   - state: The request's history for penalties; the token drawn is not added to it.
    ///   - top: Becomes the `logProbabilityCount` most likely tokens, best first.
    /// - Returns: The token; status `nonFinite` if a logit is NaN or infinite, `noCandidate` if
    ///   mask and bias forbid all tokens.
    package mutating func sample(
        _ row: UnsafeBufferPointer<Float>, parameters: SamplingParameters,
        bias: UnsafeBufferPointer<LogitBias> = .init(start: nil, count: 0),
        mask: UnsafePointer<UInt32>? = nil, state: SamplerState? = nil,
        top: inout [TokenLogProbability]
    ) -> SampledToken {
        top.removeAll(keepingCapacity: true)
        let raw = SamplerMath.scan(row)
        guard row.count == vocabularySize, vocabularySize > 0, raw.isFinite else {
            return SampledToken(token: -1, status: .nonFinite, logProbability: 0)
        }
        var token: Int32
        if adjust(row, parameters: parameters, bias: bias, mask: mask, state: state) {
            token = adjusted.withUnsafeBufferPointer { adjusted in
                let maximum = SamplerMath.scan(adjusted).maximum
                return maximum == -.infinity
                    ? -1
                    : Self.draw(adjusted, maximum, parameters, &candidates)
            }
        } else {
            token = Self.draw(row, raw.maximum, parameters, &candidates)
        }
        guard token >= 0 else {
            return SampledToken(token: -1, status: .noCandidate, logProbability: 0)
        }
        var result = SampledToken(token: token, status: .ok, logProbability: 0)
        if parameters.logProbabilityCount >= 0 {
            let normaliser = rank(
                row, maximum: raw.maximum, count: Int(parameters.logProbabilityCount), top: &top)
            result.logProbability = Float(Double(row[Int(token)]) - normaliser)
        }
        return result
    }

    /// Draws one token from an array of logits.
    package mutating func sample(
        _ row: [Float], parameters: SamplingParameters, bias: [LogitBias] = [],
        state: SamplerState? = nil, top: inout [TokenLogProbability]
    ) -> SampledToken {
        row.withUnsafeBufferPointer { row in
            bias.withUnsafeBufferPointer { bias in
                sample(row, parameters: parameters, bias: bias, state: state, top: &top)
            }
        }
    }

    /// Writes the row with mask, bias and penalties into `adjusted`; false if there are none.
    mutating func adjust(
        _ row: UnsafeBufferPointer<Float>, parameters: SamplingParameters,
        bias: UnsafeBufferPointer<LogitBias>, mask: UnsafePointer<UInt32>?, state: SamplerState?
    ) -> Bool {
        let penalises =
            parameters.repetitionPenalty != 1 || parameters.presencePenalty != 0
            || parameters.frequencyPenalty != 0
        let seen = penalises ? state?.seen ?? [] : []
        if mask == nil, bias.isEmpty, seen.isEmpty { return false }
        adjusted.withUnsafeMutableBufferPointer { _ = $0.update(fromContentsOf: row) }
        if let mask {
            for index in 0..<vocabularySize where mask[index >> 5] >> UInt32(index & 31) & 1 == 0 {
                adjusted[index] = -.infinity
            }
        }
        for pair in bias where pair.token >= 0 && Int(pair.token) < vocabularySize {
            set(Int(pair.token), adjusted[Int(pair.token)] + pair.bias)
        }
        guard let state else { return true }
        for token in seen {
            let index = Int(token)
            var value = adjusted[index]
            value =
                value > 0
                ? value / parameters.repetitionPenalty : value * parameters.repetitionPenalty
            let occurrences = state.generatedCount(token)
            if occurrences > 0 {
                value -= parameters.presencePenalty
                value -= parameters.frequencyPenalty * Float(occurrences)
            }
            set(index, value)
        }
        return true
    }

    /// Stores a changed logit: too great ones become the greatest, undefined ones are forbidden.
    private mutating func set(_ index: Int, _ value: Float) {
        adjusted[index] = value.isNaN ? -.infinity : min(value, .greatestFiniteMagnitude)
    }

    private static func draw(
        _ row: UnsafeBufferPointer<Float>, _ maximum: Float, _ parameters: SamplingParameters,
        _ candidates: inout SamplerCandidates
    ) -> Int32 {
        guard parameters.temperature > 0, parameters.topK != 1 else {
            return SamplerMath.firstIndex(of: maximum, in: row).map { Int32($0) } ?? -1
        }
        candidates.fill(row)
        if parameters.topK > 0, Int(parameters.topK) < candidates.count {
            candidates.orderByValue()
            candidates.keepFirst(reaching: UInt64(parameters.topK), of: .tokens)
        }
        var total = candidates.weigh(maximum: maximum, temperature: parameters.temperature)
        if parameters.topP < 1 {
            candidates.orderByValue()
            candidates.keepFirst(reaching: part(parameters.topP, of: total), of: .weights)
            total = candidates.total()
        }
        if parameters.minP > 0 {
            let least = Double(min(parameters.minP, 1)) * Double(SamplerMath.one)
            candidates.keep(weightAtLeast: UInt64(least.rounded(.up)))
            total = candidates.total()
        }
        if parameters.typicalP < 1 {
            candidates.orderByTypicality(total: total)
            candidates.keepFirst(reaching: part(parameters.typicalP, of: total), of: .weights)
            total = candidates.total()
        }
        let uniform = Philox.uniform(
            seedLow: parameters.seedLow, seedHigh: parameters.seedHigh,
            position: parameters.outputPosition)
        let point = total.multipliedFullWidth(by: UInt64(uniform * 0x1p24))
        return candidates.token(at: (point.high << 40) | (point.low >> 24))
    }

    private static func part(_ fraction: Float, of total: UInt64) -> UInt64 {
        guard fraction > 0 else { return 1 }
        return min(UInt64((Double(fraction) * Double(total)).rounded(.up)), total)
    }
}
