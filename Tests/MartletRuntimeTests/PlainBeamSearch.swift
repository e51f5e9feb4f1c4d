// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletRuntime
import Testing

/// The rules of transformers, written over whole sequences and all of their continuations.
struct PlainBeamSearch {
    struct Answer {
        var tokens: [Int32] = []
        var score = 0.0
        var rank = 0.0
        /// Per token the log-probabilities that it was chosen by.
        var rows: [[Double]] = []
    }

    var model: FakeModel
    var settings: SamplingSettings
    /// What a closure among the settings does, by the answer so far.
    var closure: (([Int32], inout [Double]) -> Void)?

    func run(_ prompt: [Int32]) -> [Answer] {
        let width = settings.beamCount
        let power = Double(settings.beams.lengthPenalty)
        var running = [Answer()]
        var finished: [Answer] = []
        var canImprove = true
        for length in 1...settings.maxTokens {
            var all: [Answer] = []
            for beam in running {
                let row = scores(prompt, beam.tokens)
                for (place, token) in Self.order(row).enumerated() {
                    let score = beam.score + row[token]
                    all.append(
                        Answer(
                            tokens: beam.tokens + [Int32(token)], score: score,
                            rank: score - Double(settings.beams.diversity) * Double(place),
                            rows: beam.rows + [row]))
                }
            }
            all.sort { $0.rank > $1.rank }
            let kept = all.prefix(max(2, 1 + settings.stopTokens.count) * width)
            func ends(_ answer: Answer) -> Bool {
                length == settings.maxTokens || text(of: answer.tokens).finish != .length
            }
            let isFull = settings.beams.stopping == .early && finished.count >= width
            if canImprove, !isFull {
                for var candidate in kept.prefix(width) where ends(candidate) {
                    candidate.score /= Self.pow(length, power)
                    finished.append(candidate)
                }
            }
            finished.sort { $0.score > $1.score }
            finished = Array(finished.prefix(width))
            running = Array(kept.filter { !ends($0) }.prefix(width))
            if running.isEmpty { break }
            let longest = settings.beams.stopping == .never && power > 0
            let best = running[0].score / Self.pow(longest ? settings.maxTokens : length, power)
            if finished.count >= width, best <= finished[width - 1].score { canImprove = false }
            if !canImprove { break }
            if settings.beams.stopping == .early, finished.count >= width { break }
        }
        return finished
    }

    /// Text of an answer in the fake decoding, and what ends it; `.length` if nothing else does.
    func text(of tokens: [Int32]) -> (text: String, finish: FinishReason) {
        let isStop = tokens.last.map(settings.stopTokens.contains) ?? false
        let pieces = (isStop ? tokens.dropLast() : tokens[...]).map(FakeDecoding.piece)
        let all = Array(pieces.joined())
        let watched = pieces.prefix(max(settings.minTokens - 1, 0)).joined().count
        for start in watched..<max(all.count, watched) {
            for stop in settings.stopStrings where all[start...].starts(with: stop) {
                return (String(all[..<start]), .stopString)
            }
        }
        return (String(all) + ".", isStop ? .stopToken : .length)
    }

    /// Compares what an engine found with what this search finds.
    func expect(
        _ output: GenerationOutput, of prompt: [Int32],
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let expected = run(prompt)
        let found = [output] + output.alternatives
        #expect(output.failure == nil, sourceLocation: sourceLocation)
        #expect(found.map(\.tokens) == expected.map(\.tokens), sourceLocation: sourceLocation)
        for (found, expected) in zip(found, expected) {
            let (text, finish) = text(of: expected.tokens)
            #expect(found.text == text, sourceLocation: sourceLocation)
            #expect(found.finishReason == finish, sourceLocation: sourceLocation)
            var differences = [Double(found.score ?? .nan) - expected.score]
            let count = expected.tokens.count
            #expect(
                found.logProbabilities.count == (settings.logProbabilities == nil ? 0 : count),
                sourceLocation: sourceLocation)
            for (index, value) in found.logProbabilities.enumerated() {
                let row = expected.rows[index]
                let best = Self.order(row).prefix(settings.logProbabilities ?? 0)
                let top = found.topLogProbabilities[index]
                #expect(top.map { Int($0.token) } == Array(best), sourceLocation: sourceLocation)
                differences.append(Double(value) - row[Int(expected.tokens[index])])
                differences += zip(top, best).map { Double($0.logProbability) - row[$1] }
            }
            #expect(differences.allSatisfy { abs($0) < 1e-4 }, sourceLocation: sourceLocation)
            let logits = (0..<count).map {
                model.logits(after: prompt + expected.tokens[..<$0])
            }
            #expect(
                found.generationLogits == (settings.returnGenerationLogits ? logits : []),
                sourceLocation: sourceLocation)
        }
    }

    /// Tokens that are not forbidden, likeliest first.
    private static func order(_ row: [Double]) -> [Int] {
        row.indices.filter { row[$0] > -.infinity }.sorted { row[$0] > row[$1] }
    }

    /// Log-probabilities after a beam, changed as its settings say.
    private func scores(_ prompt: [Int32], _ answer: [Int32]) -> [Double] {
        var row = AnswerTests.logSoftmax(model.logits(after: prompt + answer))
        closure?(answer, &row)
        for (token, bias) in settings.logitBias { row[Int(token)] += Double(bias) }
        for token in FakeModel.banned(settings, prompt + answer) {
            row[Int(token)] = -.infinity
        }
        if answer.count < settings.minTokens {
            for token in settings.stopTokens { row[Int(token)] = -.infinity }
        }
        for token in Set(prompt + answer) {
            let penalty = Double(settings.repetitionPenalty)
            let value = row[Int(token)]
            row[Int(token)] = value > 0 ? value / penalty : value * penalty
        }
        return row
    }

    private static func pow(_ length: Int, _ power: Double) -> Double {
        // Powers that tests use: whole and half ones.
        var result = 1.0
        for _ in 0..<Int(abs(power)) { result *= Double(length) }
        if abs(power) - Double(Int(abs(power))) > 0.25 { result *= Double(length).squareRoot() }
        return power < 0 ? 1 / result : result
    }
}
