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
    /// Token ids that an encoder reads; none where the model has no encoder.
    package var source: [Int32] = []
    /// Requests reuse what was computed for the same beginning only where their salts agree; give each
    /// party its own where one must not learn from timing what another asked.
    public var cacheSalt = ""
    /// Requests of higher priority start first, and are paused last.
    public var priority = 0
    /// Whether the plan's named outputs are wanted for the prompt, which is then computed in one
    /// step of its own.
    package var returnsNamedOutputs = false

    /// Tokens after which the answer ends as if a stop token were drawn; nil for never.
    ///
    /// Loads declare more tokens than they draw, as users do.
    package var stopsAfter: Int?

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
        if let index = source.firstIndex(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw MartletError(
                .invalidArgument,
                "source token \(index) is \(source[index]), but must be 0 to \(vocabularySize - 1)",
                context: ["index": "\(index)"])
        }
        try settings.validate(vocabularySize: vocabularySize)
    }
}
