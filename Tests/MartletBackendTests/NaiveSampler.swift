// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

/// The sampler written as plainly as possible: full sorts, sets and doubles.
struct NaiveSampler {
    var logits: [Double]

    init(_ logits: [Float]) { self.logits = logits.map(Double.init) }

    /// `exp` by its series after halving the argument, so that tests need no C library.
    static func exp(_ x: Double) -> Double {
        if x < -700 { return 0 }
        var term = 1.0
        var sum = 1.0
        let y = x / 1024
        for k in 1..<20 {
            term *= y / Double(k)
            sum += term
        }
        for _ in 0..<10 { sum *= sum }
        return sum
    }

    mutating func penalise(_ p: SamplingParameters, prompt: [Int32], generated: [Int32]) {
        for token in Set(prompt + generated) {
            let index = Int(token)
            let penalty = Double(p.repetitionPenalty)
            logits[index] = logits[index] > 0 ? logits[index] / penalty : logits[index] * penalty
            let count = generated.filter { $0 == token }.count
            if count > 0 { logits[index] -= Double(p.presencePenalty) }
            logits[index] -= Double(p.frequencyPenalty) * Double(count)
        }
    }

    func probabilities(_ tokens: [Int], temperature: Double) -> [Double] {
        let best = tokens.map { logits[$0] }.max() ?? 0
        let e = tokens.map { Self.exp((logits[$0] - best) / temperature) }
        let sum = e.reduce(0, +)
        return e.map { $0 / sum }
    }

    private func head(_ ranked: [(Int, Double)], mass: Double) -> [Int] {
        var sum = 0.0
        var kept: [Int] = []
        for (token, p) in ranked {
            kept.append(token)
            sum += p
            if sum >= mass { break }
        }
        return kept
    }

    /// Tokens that may be drawn, ascending.
    func candidates(_ p: SamplingParameters) -> [Int] {
        let temperature = Double(p.temperature)
        var tokens = logits.indices.filter { logits[$0] != -.infinity }
        tokens.sort { logits[$0] == logits[$1] ? $0 < $1 : logits[$0] > logits[$1] }
        if p.topK > 0 { tokens = Array(tokens.prefix(Int(p.topK))) }
        if p.topP < 1 {
            let q = probabilities(tokens, temperature: temperature)
            tokens = head(Array(zip(tokens, q)), mass: Double(p.topP))
        }
        if p.minP > 0 {
            let q = probabilities(tokens, temperature: temperature)
            let best = q.max() ?? 0
            tokens = zip(tokens, q).filter { $0.1 >= Double(p.minP) * best }.map(\.0)
        }
        if p.typicalP < 1 {
            // -log p differs from -logit / T by a constant, which the mean shares.
            let q = probabilities(tokens, temperature: temperature)
            let surprise = tokens.map { -logits[$0] / temperature }
            let mean = zip(q, surprise).map { $0 * $1 }.reduce(0, +)
            let distance = surprise.map { abs($0 - mean) }
            let ranked = tokens.indices.sorted { a, b in
                let isTie = distance[a] == distance[b]
                return isTie ? tokens[a] < tokens[b] : distance[a] < distance[b]
            }
            tokens = head(ranked.map { (tokens[$0], q[$0]) }, mass: Double(p.typicalP))
        }
        return tokens.sorted()
    }

    /// The token at a uniform number's place in the running sum.
    func draw(_ p: SamplingParameters) -> Int {
        let tokens = candidates(p)
        let q = probabilities(tokens, temperature: Double(p.temperature))
        let u = Philox.uniform(
            seedLow: p.seedLow, seedHigh: p.seedHigh, position: p.outputPosition)
        var sum = 0.0
        for (token, value) in zip(tokens, q) {
            sum += value
            if sum > Double(u) { return token }
        }
        return tokens.last ?? -1
    }
}

/// A small seeded generator for tests.
struct TestRandom: RandomNumberGenerator {
    private var position: UInt32 = 0
    let seed: UInt32

    init(_ seed: UInt32) { self.seed = seed }

    mutating func next() -> UInt64 {
        position &+= 1
        let words = Philox.words((position, 0, 0, 1), key: (seed, 77))
        return UInt64(words.0) << 32 | UInt64(words.1)
    }

    /// A logit-like number: a sum of uniforms, mean 0.
    mutating func logit(_ scale: Float = 3) -> Float {
        (0..<4).reduce(Float(0)) { sum, _ in sum + Float.random(in: -1..<1, using: &self) } * scale
    }
}
