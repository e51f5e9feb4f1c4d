// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Requests of a load with their times of arrival.
public struct LoadPlan: Sendable {
    /// One request of a load.
    public struct Entry: Sendable {
        /// What is asked.
        public var request: GenerationRequest
        /// Seconds after the start; 0 for those that are there from the start.
        public var arrival: Double

        /// Pairs a request with its arrival.
        public init(request: GenerationRequest, arrival: Double = 0) {
            self.request = request
            self.arrival = arrival
        }
    }

    /// How requests come.
    public enum Arrivals: Sendable, Hashable {
        /// All at once.
        case atOnce
        /// At random, independently of each other, so many a second.
        case poisson(rate: Double)
        /// Never more than so many at a time: one comes when another ends.
        case concurrency(Int)
    }

    /// In order of arrival.
    public var entries: [Entry]
    /// Most requests under way; nil for any number.
    public var concurrency: Int?

    /// A load of given requests.
    public init(entries: [Entry], concurrency: Int? = nil) {
        self.entries = entries.sorted { $0.arrival < $1.arrival }
        self.concurrency = concurrency
    }

    /// A load of random tokens.
    ///
    /// - Parameters:
    ///   - count: Requests.
    ///   - prompt: Lengths of prompts.
    ///   - answer: Lengths of answers; each is as long, whatever is drawn.
    ///   - arrivals: How they come.
    ///   - vocabularySize: V; ids below it.
    ///   - seed: The same seed gives the same load.
    public init(
        count: Int, prompt: LengthDistribution, answer: LengthDistribution, arrivals: Arrivals,
        vocabularySize: Int, seed: UInt64
    ) {
        var random = LoadRandom(seed: seed)
        var time = 0.0
        entries = (0..<max(count, 0)).map { _ in
            var settings = SamplingSettings()
            settings.maxTokens = answer.draw(&random)
            let tokens = (0..<prompt.draw(&random)).map { _ in
                Int32(clamping: random.next() % UInt64(max(vocabularySize, 1)))
            }
            if case .poisson(let rate) = arrivals, rate > 0 { time += random.interval(rate: rate) }
            return Entry(
                request: GenerationRequest(prompt: tokens, settings: settings), arrival: time)
        }
        if case .concurrency(let most) = arrivals { concurrency = max(most, 1) }
    }
}
