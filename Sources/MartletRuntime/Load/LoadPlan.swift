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
        /// Answer tokens after which it is cancelled, 0 for at once; nil for never.
        public var cancelsAfter: Int?
        /// Where the file has it, for messages.
        package var place: String?

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
        /// When the file that they are from says; all at once where it does not.
        case recorded
        /// At random, independently of each other, so many a second.
        case poisson(rate: Double)
        /// Never more than so many at a time: one comes when another ends.
        case concurrency(Int)
    }

    /// In order of arrival.
    public var entries: [Entry]
    /// Most requests under way; nil for any number.
    public var concurrency: Int?
    /// Most requests that wait; more are refused and count as failed.
    ///
    /// Nil for any number.
    public var queueLimit: Int?
    /// Whether records keep the tokens of answers.
    public var keepsTokens = false

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
        self.init(
            items: LoadItem.random(count: count, prompt: prompt, answer: answer, seed: seed),
            arrivals: arrivals, vocabularySize: vocabularySize, seed: seed)
    }

    /// A load of requests whose text has been made tokens.
    ///
    /// - Parameters:
    ///   - items: The requests.
    ///   - settings: How answers are drawn, each with a seed of its own; lengths are the items'.
    ///   - declaredLength: Answer tokens that each request declares where it is more than it draws;
    ///     nil to declare what it draws.
    ///   - arrivals: How they come.
    ///   - vocabularySize: V; random ids are below it.
    ///   - seed: The same seed gives the same load.
    package init(
        items: [LoadItem], settings: SamplingSettings = SamplingSettings(),
        declaredLength: Int? = nil, arrivals: Arrivals, vocabularySize: Int, seed: UInt64
    ) {
        var random = LoadRandom(seed: ~seed)
        var time = 0.0
        let entries = items.enumerated().map { index, item in
            var settings = settings
            settings.seed &+= UInt64(index)
            settings.maxTokens = max(item.answerCount, declaredLength ?? 0)
            var request = GenerationRequest(
                prompt: item.promptTokens(vocabularySize: vocabularySize, seed: seed, index: index),
                settings: settings)
            if settings.maxTokens > item.answerCount { request.stopsAfter = item.answerCount }
            switch arrivals {
            case .poisson(let rate) where rate > 0: time += random.interval(rate: rate)
            case .recorded: time = item.arrival ?? 0
            default: break
            }
            var entry = Entry(request: request, arrival: time)
            entry.place = item.place
            return entry
        }
        self.init(entries: entries)
        if case .concurrency(let most) = arrivals { concurrency = max(most, 1) }
    }

    /// Lets a share of the requests be cancelled, each at a random moment: at once, or behind any token but the last.
    ///
    /// - Parameters:
    ///   - share: From 0 for none to 1 for all.
    ///   - seed: The same seed picks the same ones and moments.
    public mutating func cancel(share: Double, seed: UInt64) {
        var random = LoadRandom(seed: seed ^ 0x63_61_6e_63_65_6c)
        for index in entries.indices {
            let (isChosen, moment) = (random.unit() < share, random.unit())
            let request = entries[index].request
            let answer = request.stopsAfter ?? request.settings.maxTokens
            entries[index].cancelsAfter = isChosen ? Int(moment * Double(answer)) : nil
        }
    }
}

extension LoadItem {
    /// Requests of random lengths.
    package static func random(
        count: Int, prompt: LengthDistribution, answer: LengthDistribution, seed: UInt64
    ) -> [LoadItem] {
        var random = LoadRandom(seed: seed)
        return (0..<max(count, 0)).map { index in
            let answer = answer.draw(&random)
            return LoadItem(
                prompt: .length(prompt.draw(&random), blocks: []), answer: .length(answer),
                place: "request \(index)")
        }
    }
}
