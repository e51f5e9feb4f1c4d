// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// A prompt and how to answer it.
public struct GenerationRequest: Sendable, Hashable {
    /// Token ids of the prompt, at least one.
    public var prompt: [Int32]
    /// How the answer is drawn and when it ends.
    public var settings: SamplingSettings
    /// Requests reuse what was computed for the same beginning only where their salts agree; give each
    /// party its own where one must not learn from timing what another asked.
    public var cacheSalt = ""
    /// Requests of higher priority start first, and are paused last.
    public var priority = 0
    /// Whether the plan's named outputs are wanted for the prompt, which is then computed in one
    /// step of its own.
    package var returnsNamedOutputs = false

    /// Pairs a prompt with settings.
    public init(prompt: [Int32], settings: SamplingSettings = SamplingSettings()) {
        self.prompt = prompt
        self.settings = settings
    }

    /// Checks prompt and settings.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the value and its range.
    public func validate(vocabularySize: Int) throws {
        if prompt.isEmpty {
            throw MartletError(
                .invalidArgument, "the prompt has no tokens, but must have at least 1")
        }
        if let index = prompt.firstIndex(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw MartletError(
                .invalidArgument,
                "prompt token \(index) is \(prompt[index]), but must be 0 to \(vocabularySize - 1)",
                context: ["index": "\(index)"])
        }
        try settings.validate(vocabularySize: vocabularySize)
    }
}
