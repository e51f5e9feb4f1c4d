// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend

extension LoadPlan {
    /// Draws for each request how its answer is drawn, so that batches mix greedy answers, filters, penalties, biases
    /// and runs that may not repeat.
    ///
    /// - Parameters:
    ///   - vocabularySize: V; biased tokens are below it.
    ///   - seed: The same seed gives the same settings.
    package mutating func varySampling(vocabularySize: Int, seed: UInt64) {
        var random = LoadRandom(seed: seed ^ 0x73_61_6d_70_6c_65)
        for index in entries.indices {
            entries[index].request.settings.vary(&random, below: vocabularySize)
        }
    }
}

extension SamplingSettings {
    fileprivate mutating func vary(_ random: inout LoadRandom, below size: Int) {
        func half() -> Bool { random.unit() < 0.5 }
        if half() { (repetitionPenalty, presencePenalty) = (1.2, 0.4) }
        if half() { frequencyPenalty = 0.3 }
        if half() { noRepeatNGram = 3 }
        if half() {
            logitBias[random.token(below: size)] = 2
            logitBias[random.token(below: size)] = -.infinity
        }
        if half() { badWords = [[random.token(below: size)]] }
        guard random.unit() < 0.75 else {
            temperature = 0
            return
        }
        temperature = Float(0.3 + 1.2 * random.unit())
        if half() { topK = 20 }
        if half() { (topP, topPDecay) = (0.8, 0.95) }
        if half() { minP = 0.02 }
        if half() { typicalP = 0.9 }
    }
}
