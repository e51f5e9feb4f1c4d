// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Sampler {
    /// Lists the most likely tokens of a row; returns the logarithm of the sum of exponentials.
    mutating func rank(
        _ row: UnsafeBufferPointer<Float>, maximum: Float, count: Int,
        top: inout [TokenLogProbability]
    ) -> Double {
        candidates.fill(row)
        let total = candidates.weigh(maximum: maximum, temperature: 1)
        let normaliser =
            Double(maximum) + SamplerMath.logarithm(Double(total) / Double(SamplerMath.one))
        guard count > 0 else { return normaliser }
        candidates.orderByValue()
        candidates.keepFirst(reaching: UInt64(count), of: .tokens)
        for index in 0..<candidates.count {
            let token = candidates.ids[index]
            top.append(
                TokenLogProbability(
                    token: token, logProbability: Float(Double(row[Int(token)]) - normaliser)))
        }
        top.sort {
            let (a, b) = (row[Int($0.token)], row[Int($1.token)])
            return a == b ? $0.token < $1.token : a > b
        }
        return normaliser
    }
    /// The log-probability of a token in a row, and those of the most likely ones.
    ///
    /// - Parameters:
    ///   - row: `[V]` logits, left unchanged.
    ///   - token: Whose log-probability is returned.
    ///   - count: How many of the likeliest to list.
    ///   - top: Becomes the likeliest, best first.
    /// - Returns: Nil if a logit is not finite, or the token is none.
    package mutating func logProbability(
        _ row: UnsafeBufferPointer<Float>, of token: Int32, count: Int,
        top: inout [TokenLogProbability]
    ) -> Float? {
        top.removeAll(keepingCapacity: true)
        let scanned = SamplerMath.scan(row)
        guard row.count == vocabularySize, scanned.isFinite, row.indices.contains(Int(token))
        else { return nil }
        let normaliser = rank(row, maximum: scanned.maximum, count: count, top: &top)
        return Float(Double(row[Int(token)]) - normaliser)
    }

    /// Turns logits into log-probabilities in place; false if one is not finite.
    package mutating func normalise(_ row: inout [Float]) -> Bool {
        let normaliser: Double? = row.withUnsafeBufferPointer { row in
            let scanned = SamplerMath.scan(row)
            guard row.count == vocabularySize, vocabularySize > 0, scanned.isFinite else {
                return nil
            }
            var top: [TokenLogProbability] = []
            return rank(row, maximum: scanned.maximum, count: 0, top: &top)
        }
        guard let normaliser else { return false }
        for index in row.indices { row[index] = Float(Double(row[index]) - normaliser) }
        return true
    }

    /// Applies biases and penalties to a row in place, as a draw does before it filters.
    package mutating func apply(
        _ parameters: SamplingParameters, bias: UnsafeBufferPointer<LogitBias>,
        state: SamplerState?, to row: inout [Float]
    ) {
        guard row.count == vocabularySize else { return }
        let isChanged = row.withUnsafeBufferPointer {
            adjust($0, parameters: parameters, bias: bias, mask: nil, state: state)
        }
        if isChanged {
            row.withUnsafeMutableBufferPointer { _ = $0.update(fromContentsOf: adjusted) }
        }
    }

    /// Lists the greatest elements of a row with their values, best first; forbidden ones are left out.
    package mutating func greatest(_ row: [Float], count: Int) -> [TokenLogProbability] {
        row.withUnsafeBufferPointer { candidates.fill($0) }
        candidates.orderByValue()
        candidates.keepFirst(reaching: UInt64(max(count, 1)), of: .tokens)
        var top = (0..<candidates.count).map {
            TokenLogProbability(
                token: candidates.ids[$0], logProbability: row[Int(candidates.ids[$0])])
        }
        top.sort {
            $0.logProbability == $1.logProbability
                ? $0.token < $1.token : $0.logProbability > $1.logProbability
        }
        return top
    }
}
