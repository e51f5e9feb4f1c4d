// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A request of a load as a file has it, before text is made tokens and lengths are filled.
package struct LoadItem: Sendable, Hashable {
    /// What a prompt is given as.
    package enum Prompt: Sendable, Hashable {
        /// Text.
        case text(String)
        /// Token ids.
        case tokens([Int32])
        /// So many tokens; those of equal block names begin alike, 512 tokens a block.
        case length(Int, blocks: [Int])
    }

    /// How an answer's length is given.
    package enum Answer: Sendable, Hashable {
        /// In tokens.
        case length(Int)
        /// As that of a text.
        case text(String)
    }

    /// Prompt.
    package var prompt: Prompt
    /// Length of the answer.
    package var answer: Answer
    /// Seconds after the start, where the file says so.
    package var arrival: Double?
    /// Where it stands, for messages.
    package var place: String

    /// Gathers the values.
    package init(prompt: Prompt, answer: Answer, arrival: Double? = nil, place: String) {
        self.prompt = prompt
        self.answer = answer
        self.arrival = arrival
        self.place = place
    }

    /// Tokens of a block of a trace, as Mooncake's have them.
    static let blockLength = 512

    /// The same with tokens in place of text.
    ///
    /// - Throws: What the tokenizer throws, with the place; `MartletError` `.invalidArgument` for a
    ///   prompt without tokens.
    package func tokenized(_ tokens: (String) throws -> [Int32]) throws -> LoadItem {
        var copy = self
        do {
            if case .text(let text) = prompt { copy.prompt = .tokens(try tokens(text)) }
            if case .text(let text) = answer { copy.answer = .length(try tokens(text).count) }
        } catch let error as MartletError {
            let placed = error.placed(at: place)
            guard error.code == .unsupported else { throw placed }
            throw placed.mending(
                "Give JSON lines with \"input_ids\" and \"output_tokens\" instead of text")
        }
        if case .tokens(let ids) = copy.prompt, ids.isEmpty {
            throw MartletError(
                .invalidArgument, "\(place): the prompt has no tokens, but must have at least 1",
                mend: "Give a prompt of more text, or leave it out")
        }
        return copy
    }

    /// Tokens of the prompt; 0 while it is text.
    package var promptCount: Int {
        switch prompt {
        case .text: 0
        case .tokens(let tokens): tokens.count
        case .length(let count, _): count
        }
    }

    /// Tokens of the answer; 0 while it is text.
    package var answerCount: Int { if case .length(let count) = answer { count } else { 0 } }

    /// The prompt's tokens, random where only a length is given.
    func promptTokens(vocabularySize: Int, seed: UInt64, index: Int) -> [Int32] {
        guard case .length(let count, let blocks) = prompt else {
            if case .tokens(let tokens) = prompt { return tokens }
            return []
        }
        var tokens: [Int32] = []
        tokens.reserveCapacity(count)
        for block in blocks where tokens.count < count {
            var random = LoadRandom(seed: seed ^ UInt64(bitPattern: Int64(block)) &* 0xd1b5_4a32)
            let rest = min(Self.blockLength, count - tokens.count)
            for _ in 0..<rest { tokens.append(random.token(below: vocabularySize)) }
        }
        // Nobody else's.
        var random = LoadRandom(seed: seed &+ UInt64(index + 1) &* 0x9e6c_63d0_876a_68ee)
        while tokens.count < count { tokens.append(random.token(below: vocabularySize)) }
        return tokens
    }
}

extension MartletError {
    /// The same failure with the place of the request that it is about.
    func placed(at place: String) -> MartletError {
        var copy = self
        if !message.hasPrefix(place) { copy.message = "\(place): \(message)" }
        return copy
    }
}
