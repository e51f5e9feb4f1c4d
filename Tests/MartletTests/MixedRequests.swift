// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletRuntime
import MartletTestSupport

/// Requests of mixed lengths and settings, the same for the same seed.
struct MixedRequests {
    /// Of every three prompts one begins as this.
    private static let sharedBeginning = 48
    /// Longest prompt and answer together.
    static let maxContext = 256

    private var random: SeededRandom
    private let vocabularySize: Int32
    private let shared: [Int32]

    init(seed: UInt64, vocabularySize: Int) {
        self.vocabularySize = Int32(vocabularySize)
        random = SeededRandom(seed: seed)
        shared = random.tokens(Self.sharedBeginning, below: self.vocabularySize)
    }

    /// Every setting that shapes an answer occurs, alone and with others.
    private mutating func settings(_ index: Int) -> SamplingSettings {
        var settings = SamplingSettings()
        settings.maxTokens = Int.random(in: 1...64, using: &random)
        settings.minTokens = settings.maxTokens / 4
        settings.seed = UInt64(index)
        guard index % 10 != 3 else {
            // A search takes the likeliest, not a draw.
            (settings.beamCount, settings.answerCount) = (3, 2)
            settings.noRepeatNGram = 3
            return settings
        }
        guard index % 4 != 0 else { return settings }
        settings.temperature = Float.random(in: 0.3...1.5, using: &random)
        if Bool.random(using: &random) { settings.topK = 20 }
        if Bool.random(using: &random) { settings.topP = 0.8 }
        if Bool.random(using: &random) { settings.minP = 0.02 }
        if Bool.random(using: &random) { settings.typicalP = 0.9 }
        if Bool.random(using: &random) { settings.repetitionPenalty = 1.2 }
        if Bool.random(using: &random) { settings.presencePenalty = 0.4 }
        if Bool.random(using: &random) { settings.frequencyPenalty = 0.3 }
        if Bool.random(using: &random) { settings.noRepeatNGram = 3 }
        if Bool.random(using: &random) { settings.logitBias = [5: 2, 7: -.infinity] }
        if Bool.random(using: &random) { settings.badWords = [[4], [9, 11]] }
        if Bool.random(using: &random) { settings.topPDecay = 0.95 }
        if Bool.random(using: &random) { settings.stopTokens = [6] }
        switch index % 10 {
        case 1: settings.answerCount = 2
        case 2: (settings.answerCount, settings.bestOf) = (1, 3)
        default: break
        }
        return settings
    }

    /// The next so many requests.
    mutating func next(_ count: Int) -> [GenerationRequest] {
        (0..<count).map { index in
            let length = Int.random(in: 1...120, using: &random)
            let own = random.tokens(length, below: vocabularySize)
            return GenerationRequest(
                prompt: index % 3 == 0 ? shared + own : own, settings: settings(index))
        }
    }
}
