// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Tokens still in play while filters narrow them, in order of rising id.
///
/// Memory is kept between rows.
struct SamplerCandidates: Sendable {
    private(set) var count = 0
    private(set) var ids: [Int32]
    /// Logits less the greatest, over temperature.
    private(set) var scaled: [Float]
    /// Probabilities in units of 2^-40 of the greatest.
    private(set) var weights: [UInt64]
    private var keys: [UInt32]
    private var histogram = [UInt64](repeating: 0, count: 2048)

    init(vocabularySize: Int) {
        ids = [Int32](repeating: 0, count: vocabularySize)
        scaled = [Float](repeating: 0, count: vocabularySize)
        weights = [UInt64](repeating: 0, count: vocabularySize)
        keys = [UInt32](repeating: 0, count: vocabularySize)
    }

    /// What a selection adds up.
    enum Measure {
        /// Tokens.
        case tokens
        /// Probability.
        case weights
    }

    /// Takes all tokens but the forbidden ones; `scaled` holds the logits themselves until `weigh`.
    mutating func fill(_ row: UnsafeBufferPointer<Float>) {
        count = 0
        for index in 0..<min(row.count, ids.count) where row[index] != -.infinity {
            ids[count] = Int32(truncatingIfNeeded: index)
            scaled[count] = row[index]
            count += 1
        }
    }

    /// Orders tokens by their value in `scaled` for the next selection.
    mutating func orderByValue() {
        for index in 0..<count { keys[index] = SamplerMath.orderedKey(scaled[index]) }
    }

    /// Orders tokens by nearness of their surprise to the mean surprise, as typical sampling wants.
    mutating func orderByTypicality(total: UInt64) {
        var sum = 0.0
        for index in 0..<count where weights[index] > 0 {
            sum += Double(weights[index]) * Double(scaled[index])
        }
        let mean = Float(sum / Double(total))
        for index in 0..<count {
            keys[index] = SamplerMath.orderedKey(-abs(mean - scaled[index]))
        }
    }

    /// Turns logits into scaled logits and weights; returns the sum of the weights.
    mutating func weigh(maximum: Float, temperature: Float) -> UInt64 {
        for index in 0..<count { scaled[index] = (scaled[index] - maximum) / temperature }
        let length = count
        return scaled.withUnsafeBufferPointer { scaled in
            weights.withUnsafeMutableBufferPointer { weights in
                SamplerMath.weigh(
                    UnsafeBufferPointer(rebasing: scaled[..<length]),
                    into: UnsafeMutableBufferPointer(rebasing: weights[..<length]))
            }
        }
    }

    /// Sum of the weights.
    func total() -> UInt64 {
        var sum: UInt64 = 0
        for index in 0..<count { sum &+= weights[index] }
        return sum
    }

    /// Keeps tokens of at least this weight.
    mutating func keep(weightAtLeast least: UInt64) {
        var kept = 0
        for index in 0..<count where weights[index] >= least {
            move(index, to: kept)
            kept += 1
        }
        count = kept
    }

    /// Keeps the shortest run of tokens, by falling key, then rising id, that reaches the target.
    ///
    /// A radix selection: three passes of histograms, no sort. Tokens stay in order of rising id.
    /// - Complexity: O(count).
    mutating func keepFirst(reaching target: UInt64, of measure: Measure) {
        var remaining = max(target, 1)
        var prefix: UInt32 = 0
        for (shift, bits) in [(21, 11), (10, 11), (0, 10)] as [(UInt32, UInt32)] {
            let bins = 1 << Int(bits)
            for bin in 0..<bins { histogram[bin] = 0 }
            let above = shift + bits
            for index in 0..<count where above == 32 || keys[index] >> above == prefix {
                let bin = Int((keys[index] >> shift) & UInt32(bins - 1))
                histogram[bin] &+= measure == .tokens ? 1 : weights[index]
            }
            var bin = bins - 1
            while bin >= 0, histogram[bin] < remaining {
                remaining -= histogram[bin]
                bin -= 1
            }
            guard bin >= 0 else { return }  // All tokens together do not reach the target.
            prefix = above == 32 ? UInt32(bin) : (prefix << bits) | UInt32(bin)
        }
        var kept = 0
        for index in 0..<count {
            if keys[index] < prefix { continue }
            if keys[index] == prefix {
                if remaining == 0 { continue }
                let size = measure == .tokens ? 1 : weights[index]
                remaining -= min(size, remaining)
            }
            move(index, to: kept)
            kept += 1
        }
        count = kept
    }

    /// The token at a point of the running sum of weights, in order of id.
    func token(at point: UInt64) -> Int32 {
        var sum: UInt64 = 0
        var last: Int32 = -1
        for index in 0..<count where weights[index] > 0 {
            sum &+= weights[index]
            last = ids[index]
            if sum > point { return last }
        }
        return last
    }

    private mutating func move(_ index: Int, to place: Int) {
        guard index != place else { return }
        ids[place] = ids[index]
        scaled[place] = scaled[index]
        weights[place] = weights[index]
        keys[place] = keys[index]
    }
}
