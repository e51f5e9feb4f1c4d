// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// What a request has seen so far: the content of one state slot, behind the penalties.
///
/// Memory, 4 V bytes, is taken at the first token and kept; forgetting visits seen tokens only.
package struct SamplerState: Sendable {
    private static let promptBit: UInt32 = 1 << 31

    /// V; ids outside `0 ..< vocabularySize` are ignored.
    package let vocabularySize: Int
    /// Distinct tokens seen, in order of first occurrence.
    package private(set) var seen: [Int32] = []
    /// Per token: bit 31 for the prompt, below it the occurrences in the generated tokens.
    private var marks: [UInt32] = []

    /// An empty history.
    package init(vocabularySize: Int) { self.vocabularySize = vocabularySize }

    /// Forgets all tokens.
    package mutating func reset() {
        for token in seen { marks[Int(token)] = 0 }
        seen.removeAll(keepingCapacity: true)
    }

    /// Adds a token of the prompt, which counts for the repetition penalty only.
    package mutating func addPrompt(_ token: Int32) {
        guard touch(token) else { return }
        marks[Int(token)] |= Self.promptBit
    }

    /// Adds a generated token, which counts for all penalties.
    package mutating func addGenerated(_ token: Int32) {
        guard touch(token) else { return }
        if marks[Int(token)] & ~Self.promptBit != ~Self.promptBit { marks[Int(token)] += 1 }
    }

    /// How often a token occurs among the generated ones.
    package func generatedCount(_ token: Int32) -> Int {
        guard token >= 0, Int(token) < marks.count else { return 0 }
        return Int(marks[Int(token)] & ~Self.promptBit)
    }

    /// Lists the token as seen; false if it is no token.
    private mutating func touch(_ token: Int32) -> Bool {
        guard token >= 0, Int(token) < vocabularySize else { return false }
        if marks.isEmpty { marks = [UInt32](repeating: 0, count: vocabularySize) }
        if marks[Int(token)] == 0 { seen.append(token) }
        return true
    }
}
