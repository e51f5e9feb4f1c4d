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
/// tokens. An answer that ends is kept if it is among the W best; its score is its log-probability
/// over `length^lengthPenalty`. Ties go to the lower beam, then to the better rank in it.
///
/// Numerics: f32 sums, as in transformers, whose results it shares.
package struct BeamSearch: Sendable {
    /// An answer that ended.
    package struct Answer: Sendable, Hashable {
        /// Its tokens, a final stop token included.
        package var tokens: [Int32]
        /// Log-probability over the power of its length.
        package var score: Float
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
        /// Log-probability of the answer with it.
        var score: Float
        /// What it is chosen by.
        var rank: Float
    }

    /// Score of what cannot be.
    private static let impossible: Float = -1e9

    /// W.
    package let width: Int
    private let settings: BeamSettings
    private let stopTokens: [Int32]
    private let maxTokens: Int
    private let candidateCount: Int
    private var scores: [Float]
    private var beams: [[Int32]]
    private var finished: [Answer] = []
    private var length = 0
    private var canImprove = true
    /// Whether the search has ended.
    package private(set) var isDone = false

    /// Begins a search.
    ///
    /// - Parameters:
    ///   - settings: Beams, stop tokens and how answers are ranked.
    ///   - maxTokens: Most tokens of an answer, at least 1.
    package init(_ settings: SamplingSettings, maxTokens: Int) {
        width = settings.beamCount
        self.settings = settings.beams
        stopTokens = settings.stopTokens
        self.maxTokens = maxTokens
        candidateCount = settings.beamCandidateCount
        scores = [Float](repeating: Self.impossible, count: settings.beamCount)
        scores[0] = 0
        beams = [[Int32]](repeating: [], count: settings.beamCount)
    }

    /// Takes a step.
    ///
    /// - Parameter continuations: Per beam, the likeliest tokens after it with their
    ///   log-probabilities, best first; the first step has one beam.
    /// - Returns: What goes on; nil if the search has ended.
    package mutating func advance(_ continuations: [[TokenLogProbability]]) -> Step? {
        let candidates = ranked(continuations)
        let next = length + 1
        let ends = candidates.map { stopTokens.contains($0.token) || next >= maxTokens }
        keep(candidates, ends, length: next)
        let step = goOn(candidates, ends)
        length = next
        let longest = settings.stopping == .never && settings.lengthPenalty > 0
        let best = scores[0] / power(longest ? maxTokens : next)
        // Nothing is good enough to end the search before as many answers as beams have ended.
        let worst = finished.map(\.score).min() ?? 0
        canImprove = canImprove && (finished.count < width || best > worst)
        isDone =
            !canImprove || (settings.stopping == .early && finished.count >= width)
            || !ends.contains(false)
        return isDone ? nil : step
    }

    /// The best answers, best first; after the end.
    package func answers(_ count: Int) -> [Answer] { Array(finished.prefix(count)) }

    /// The best continuations of all beams.
    private func ranked(_ continuations: [[TokenLogProbability]]) -> [Continuation] {
        var all: [Continuation] = []
        for (beam, list) in continuations.enumerated() where scores.indices.contains(beam) {
            for (place, candidate) in list.enumerated() {
                let score = candidate.logProbability + scores[beam]
                all.append(
                    Continuation(
                        parent: beam, token: candidate.token, score: score,
                        rank: score - settings.diversity * Float(place)))
            }
        }
        // A stable order: beams and their continuations come best first.
        let order = all.indices.sorted {
            all[$0].rank == all[$1].rank ? $0 < $1 : all[$0].rank > all[$1].rank
        }
        return order.prefix(candidateCount).map { all[$0] }
    }

    /// Keeps those of the W best continuations that end an answer, if they are good enough.
    private mutating func keep(_ candidates: [Continuation], _ ends: [Bool], length: Int) {
        guard canImprove, settings.stopping != .early || finished.count < width else { return }
        for (candidate, ends) in zip(candidates, ends).prefix(width) where ends {
            finished.append(
                Answer(
                    tokens: beams[candidate.parent] + [candidate.token],
                    score: candidate.score / power(length)))
        }
        let order = finished.indices.sorted {
            let (a, b) = (finished[$0].score, finished[$1].score)
            return a == b ? $0 < $1 : a > b
        }
        finished = order.prefix(width).map { finished[$0] }
    }

    /// Lets the W best continuations that do not end go on.
    private mutating func goOn(_ candidates: [Continuation], _ ends: [Bool]) -> Step {
        var chosen: [Continuation] = []
        for (candidate, ends) in zip(candidates, ends) where !ends && chosen.count < width {
            chosen.append(candidate)
        }
        // Fewer than W where the vocabulary is small: the rest cannot win.
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
        let old = beams
        beams = chosen.map { old[$0.parent] + [$0.token] }
        scores = chosen.map(\.score)
        return Step(parents: chosen.map(\.parent), tokens: chosen.map(\.token))
    }

    private func power(_ length: Int) -> Float {
        max(powf(Float(length), settings.lengthPenalty), .leastNormalMagnitude)
    }
}
