// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// How far the predictions of one model are from those of another, over many positions.
///
/// For each position with base probabilities p and probabilities q: `KL = sum p ln(p / q)`, and
/// whether both have the same likeliest token. Statistics are those of llama-perplexity's KL mode;
/// it stores base logits in 16 bits and leaves out tokens of p < e^-16, this does neither.
/// Numerics: logits are f32, everything else f64.
package struct Divergence: Sendable {
    /// KL of each position, in nats.
    private(set) package var values: [Double] = []
    private var sameTopCount = 0
    private var loss = 0.0
    private var baseLoss = 0.0
    private var squaredDifference = 0.0

    /// No positions yet.
    package init() {}

    /// Adds a position.
    ///
    /// - Parameters:
    ///   - base: `[V]` logits of the model compared with.
    ///   - logits: `[V]` logits of the model under test.
    ///   - token: The token that follows in the text.
    package mutating func add(base: [Float], logits: [Float], token: Int) {
        let count = min(base.count, logits.count)
        guard count > 0, token >= 0, token < count else { return }
        let (baseTop, baseNorm) = Self.norm(base)
        let (top, norm) = Self.norm(logits)
        var sum = 0.0
        for index in 0..<count {
            let p = Double(base[index]) - baseNorm
            sum += exp(p) * (p - (Double(logits[index]) - norm))
        }
        values.append(max(0, sum))
        if baseTop == top { sameTopCount += 1 }
        let (p, q) = (Double(base[token]) - baseNorm, Double(logits[token]) - norm)
        baseLoss -= p
        loss -= q
        let difference = exp(q) - exp(p)
        squaredDifference += difference * difference
    }

    /// Index of the largest logit, and the logarithm of the sum of exponentials.
    private static func norm(_ logits: [Float]) -> (top: Int, log: Double) {
        var top = 0
        for index in logits.indices where logits[index] > logits[top] { top = index }
        let largest = Double(logits[top])
        var sum = 0.0
        for value in logits { sum += exp(Double(value) - largest) }
        return (top, largest + log(sum))
    }

    /// Positions so far.
    package var count: Int { values.count }
    /// Mean KL.
    package var mean: Double { count > 0 ? values.reduce(0, +) / Double(count) : 0 }
    /// Standard error of the mean.
    package var standardError: Double {
        guard count > 1 else { return 0 }
        let mean = mean
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(count)
        return (variance / Double(count - 1)).squareRoot()
    }
    /// Share of positions whose likeliest token is the same.
    package var topAgreement: Double { count > 0 ? Double(sameTopCount) / Double(count) : 0 }
    /// Perplexity of the model under test.
    package var perplexity: Double { exp(loss / Double(max(count, 1))) }
    /// Perplexity of the model compared with.
    package var basePerplexity: Double { exp(baseLoss / Double(max(count, 1))) }
    /// Root mean square of the differences in the probability of the token that follows.
    package var probabilityDifference: Double {
        (squaredDifference / Double(max(count, 1))).squareRoot()
    }

    /// KL values by rank.
    ///
    /// - Parameter fraction: 0 for the least, 0.5 for the median, 1 for the largest; between two
    ///   values it interpolates.
    package func percentile(_ fraction: Double) -> Double {
        guard count > 0 else { return 0 }
        let sorted = values.sorted()
        let position = min(max(fraction, 0), 1) * Double(count - 1)
        let index = min(Int(position), count - 1)
        let next = min(index + 1, count - 1)
        let share = position - Double(index)
        return (1 - share) * sorted[index] + share * sorted[next]
    }
}
