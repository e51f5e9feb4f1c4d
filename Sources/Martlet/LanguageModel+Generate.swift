// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletEngineFile
import MartletFormats
public import MartletRuntime
package import MartletTokenizer

extension LanguageModel {
    /// Whether the model came with a tokenizer.
    public var hasTokenizer: Bool { tokenizer != nil }

    /// Token ids of a text as it is, special tokens recognised.
    ///
    /// - Throws: `MartletError` `.unsupported` without a tokenizer.
    public func tokens(_ text: String, addSpecial: Bool = true) throws -> [Int32] {
        guard let tokenizer else {
            throw MartletError(
                .unsupported, "the model has no tokenizer",
                mend: "Name a checkpoint that has one; run also takes --input-ids 1,2,3")
        }
        return tokenizer.encode(text, allowSpecial: true, addSpecial: addSpecial)
            .map { Int32(clamping: $0) }
    }

    /// The text of one token.
    public func text(of token: Int32) -> String {
        tokenizer?.decode([Int(token)], skipSpecial: false) ?? String(token)
    }

    /// Events of one request, as they happen.
    ///
    /// - Throws: `MartletError` if the request cannot run.
    public func events(
        _ request: GenerationRequest
    ) throws -> GenerationEvents { try inference.generate(request) }

    /// The answer to a chat message, piece by piece.
    ///
    /// - Parameters:
    ///   - prompt: The user's message.
    ///   - system: A system message, if any.
    ///   - settings: How the answer is drawn; the model's own end tokens are added to the stops.
    /// - Throws: `MartletError` if the request cannot run; the stream throws what happens later.
    public func stream(
        _ prompt: String, system: String? = nil, settings: SamplingSettings = SamplingSettings()
    ) throws -> GeneratedText {
        var settings = settings
        settings.stopTokens += stopTokens
        return GeneratedText(
            events: try events(
                GenerationRequest(prompt: promptTokens(prompt, system: system), settings: settings))
        )
    }

    /// Answers of several requests, run together; blocks the calling thread.
    ///
    /// - Throws: `MartletError` for the first request that cannot run.
    public func generateBatch(_ requests: [GenerationRequest]) throws -> [GenerationOutput] {
        try inference.generateBatch(requests)
    }

    /// Checks that a request can run.
    ///
    /// - Throws: `MartletError` naming the value and its limit.
    package func check(_ request: GenerationRequest) throws { try inference.check([request]) }

    /// Precisions of the engine in one line.
    public var precisionLine: String {
        engine.description.precision.line
    }

    /// Bytes of all weights in the engine.
    public var weightBytes: Int { engine.parameters.values.reduce(0) { $0 + $1.count } }
}

extension EnginePrecision {
    /// The formats in one line.
    package var line: String {
        "weights \(weights), activations \(activations) (\(dtype)), KV \(kvDType)"
    }
}

extension LanguageModel {
    /// The token that begins every text, where the tokenizer adds one.
    public var beginningToken: Int32? {
        tokenizer.flatMap { $0.description.prefixIDs.first }.map { Int32(clamping: $0) }
    }

    /// The tokenizer of a checkpoint or an engine, without loading weights.
    ///
    /// - Throws: `MartletError` `.unsupported` if it has none.
    package static func tokenizer(_ path: String) throws -> Tokenizer {
        let text =
            path.hasSuffix(".martlet")
            ? try TextDescription(EngineFileReader.open(path))
            : try TextDescription(ModelSource.open(path))
        guard let description = text.tokenizer else {
            throw MartletError(.unsupported, "\(path) has no tokenizer")
        }
        return try Tokenizer(description)
    }
}
