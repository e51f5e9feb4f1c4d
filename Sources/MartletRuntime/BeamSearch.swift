// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A search for the likeliest answer with W beams: what goes on and what has ended, without a model.
///
/// Each step it is given every beam's best continuations and says which beams go on with which
/// tokens. An answer that ends, by a stop token, a stop string or its length, is kept if it is among
/// the W best; its score is its log-probability over `length^lengthPenalty`. Ties go to the lower
/// beam, then to the better rank in it.
///
/// Numerics: f32 sums, as in transformers, whose results it shares.
package struct BeamSearch: Sendable {
    /// What a step knows of a beam.
    package struct Row: Sendable {
        let likeliest: [TokenLogProbability]
        let logits: [Float]

        /// Gathers the values.
        ///
        /// - Parameters:
        ///   - likeliest: Tokens after the beam with their log-probabilities, best first.
        ///   - logits: `[V]`, where answers are to hold them.
        package init(likeliest: [TokenLogProbability], logits: [Float] = []) {
            self.likeliest = likeliest
            self.logits = logits
        }
    }

    /// A beam, or an answer that ended.
    package struct Answer: Sendable {
        /// Its tokens, a final stop token included.
        fileprivate(set) var tokens: [Int32] = []
        /// Log-probability; over the power of its length since it ended.
        fileprivate(set) var score: Float
        /// Per token, where asked for: what the score is the sum of.
        fileprivate(set) var logProbabilities: [Float] = []
        /// Per token, where asked for: the likeliest in its place, best first.
        fileprivate(set) var topLogProbabilities: [[TokenLogProbability]] = []
        /// Per token, where asked for: `[V]`, the same memory in all beams that share the token.
        fileprivate(set) var logits: [[Float]] = []
        fileprivate var text: AnswerText?
    }

    /// What goes on after a step.
    package struct Step: Sendable, Hashable {
        /// Per beam, the beam whose tokens it goes on with.
        package var parents: [Int] = []
        /// Per beam, the token after them.
        package var tokens: [Int32] = []
    }

    private struct Continuation {
        var parent: Int
        var token: Int32
        var logProbability: Float
        /// Log-probability of the answer with it.
        var score: Float
        /// What it is chosen by.
        var rank: Float
    }

    /// Score of what cannot be.
    private static let impossible: Float = -1e9

    /// W.
    package let width: Int
    private let settings: SamplingSettings
    private let maxTokens: Int
    private var beams: [Answer]
    private var finished: [Answer] = []
    private var length = 0
    private var canImprove = true
    /// Whether the search has ended.
    package private(set) var isDone = false

    /// Begins a search.
    ///
    /// - Parameters:
    ///   - settings: Beams, stop tokens, how answers are ranked and what is reported of them.
    ///   - maxTokens: Most tokens of an answer, at least 1.
    ///   - text: Each answer's text before its first token, if it may end an answer.
    package init(_ settings: SamplingSettings, maxTokens: Int, text: AnswerText? = nil) {
        width = settings.beamCount
        self.settings = settings
        self.maxTokens = maxTokens
        beams = [Answer](
            repeating: Answer(score: Self.impossible, text: text), count: settings.beamCount)
        beams[0].score = 0
    }

    /// Takes a step.
    ///
    /// - Parameter rows: What is known of each beam; the first step has one.
    /// - Returns: What goes on; nil if the search has ended.
    package mutating func advance(_ rows: [Row]) -> Step? {
        length += 1
        let candidates = ranked(rows)
        guard !candidates.isEmpty else {
            isDone = true  // all beams are in dead ends
            return nil
        }
        let ends = candidates.map { endsAnswer($0) }
        keep(candidates, ends, rows)
        let step = goOn(candidates, ends, rows)
        let (stopping, penalty) = (settings.beams.stopping, settings.beams.lengthPenalty)
        let best = beams[0].score / power(stopping == .never && penalty > 0 ? maxTokens : length)
        // Nothing is good enough to end the search before as many answers as beams have ended.
        let worst = finished.map(\.score).min() ?? 0
        canImprove = canImprove && (finished.count < width || best > worst)
        isDone =
            !canImprove || (stopping == .early && finished.count >= width) || !ends.contains(false)
        return isDone ? nil : step
    }

    /// The best answers, best first; after the end.
    package func answers(_ count: Int) -> [Answer] { Array(finished.prefix(count)) }

    /// The best continuations of all beams.
    private func ranked(_ rows: [Row]) -> [Continuation] {
        let count = settings.beamCandidateCount
        var all: [Continuation] = []
        for (beam, row) in rows.enumerated() where beams.indices.contains(beam) {
            // Those behind are there to be reported only.
            for (place, candidate) in row.likeliest.prefix(count).enumerated() {
                let score = candidate.logProbability + beams[beam].score
                all.append(
                    Continuation(
                        parent: beam, token: candidate.token,
                        logProbability: candidate.logProbability, score: score,
                        rank: score - settings.beams.diversity * Float(place)))
            }
        }
        // A stable order: beams and their continuations come best first.
        let order = all.indices.sorted {
            all[$0].rank == all[$1].rank ? $0 < $1 : all[$0].rank > all[$1].rank
        }
        return order.prefix(count).map { all[$0] }
    }

    /// Whether an answer ends with a continuation.
    private func endsAnswer(_ candidate: Continuation) -> Bool {
        if settings.stopTokens.contains(candidate.token) || length >= maxTokens { return true }
        var (text, finish) = (beams[candidate.parent].text, FinishReason?.none)
        _ = text?.append(candidate.token, index: length - 1, finish: &finish)
        return finish != nil
    }

    /// Keeps those of the W best continuations that end an answer, if they are good enough.
    private mutating func keep(_ candidates: [Continuation], _ ends: [Bool], _ rows: [Row]) {
        let isFull = settings.beams.stopping == .early && finished.count >= width
        guard canImprove, !isFull else { return }
        for (candidate, ends) in zip(candidates, ends).prefix(width) where ends {
            var answer = extended(candidate, rows)
            answer.score /= power(length)
            finished.append(answer)
        }
        let order = finished.indices.sorted {
            let (a, b) = (finished[$0].score, finished[$1].score)
            return a == b ? $0 < $1 : a > b
        }
        finished = order.prefix(width).map { finished[$0] }
    }

    /// Lets the W best continuations that do not end go on.
    private mutating func goOn(
        _ candidates: [Continuation], _ ends: [Bool], _ rows: [Row]
    ) -> Step {
        var chosen: [Continuation] = []
        for (candidate, ends) in zip(candidates, ends) where !ends && chosen.count < width {
            chosen.append(candidate)
        }
        // Fewer than W where most end or the vocabulary is small: the rest cannot win.
        for (candidate, ends) in zip(candidates, ends) where ends && chosen.count < width {
            var lost = candidate
            lost.score += Self.impossible
            chosen.append(lost)
        }
        while let last = chosen.last, chosen.count < width {
            var lost = last
            lost.score = Self.impossible
            chosen.append(lost)
        }
        beams = chosen.map { extended($0, rows) }
        return Step(parents: chosen.map(\.parent), tokens: chosen.map(\.token))
    }

    /// The beam of a continuation with its token.
    private func extended(_ candidate: Continuation, _ rows: [Row]) -> Answer {
        let row = rows[candidate.parent]
        var (answer, finish) = (beams[candidate.parent], FinishReason?.none)
        answer.tokens.append(candidate.token)
        answer.score = candidate.score
        if let count = settings.logProbabilities {
            answer.logProbabilities.append(candidate.logProbability)
            answer.topLogProbabilities.append(Array(row.likeliest.prefix(count)))
        }
        if settings.returnGenerationLogits { answer.logits.append(row.logits) }
        _ = answer.text?.append(candidate.token, index: length - 1, finish: &finish)
        return answer
    }

    private func power(_ length: Int) -> Float {
        max(powf(Float(length), settings.beams.lengthPenalty), .leastNormalMagnitude)
    }
}
