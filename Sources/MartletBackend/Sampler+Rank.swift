// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Sampler {
    /// Lists the most likely tokens of a row; returns the logarithm of the sum of exponentials.
    func rank(
        _ row: UnsafeBufferPointer<Float>, maximum: Float, count: Int,
        top: inout [TokenLogProbability]
    ) -> Double {
        let total = SamplerMath.totalWeight(row, maximum: maximum)
        let normaliser =
            Double(maximum) + SamplerMath.logarithm(Double(total) / Double(SamplerMath.one))
        GreatestElements.list(row, count: count, into: &top)
        for index in top.indices {
            top[index].logProbability = Float(Double(top[index].logProbability) - normaliser)
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
    package func logProbability(
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
    package func normalise(_ row: inout [Float]) -> Bool {
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
    package func greatest(_ row: [Float], count: Int) -> [TokenLogProbability] {
        var top: [TokenLogProbability] = []
        row.withUnsafeBufferPointer {
            GreatestElements.list($0, count: max(count, 1), into: &top)
        }
        return top
    }
}
