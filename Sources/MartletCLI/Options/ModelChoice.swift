// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// A model by name, or the shape of one with random weights.
struct ModelChoice: ParsableArguments {
    @Argument(
        help: "Model: alias, path, engine file, or owner/name:FILE.",
        completion: ModelFinder.completion)
    var model: String?
    @Option(
        help: """
            Instead of a model: the shape of a published one with random weights, such as \
            tinyllama-1.1b.
            """,
        completion: .list(ModelPreset.all.map(\.name)))
    var preset: String?

    /// Where the model comes from.
    enum Source {
        /// A file or folder.
        case path(String)
        /// A shape.
        case preset(ModelPreset)
    }

    /// A choice that was looked up.
    struct Found {
        /// As the user named it.
        let name: String
        let source: Source

        /// Path for people; the preset's name where there is none.
        var path: String {
            switch source {
            case .path(let path): path
            case .preset(let preset): preset.name
            }
        }

        /// The file or folder it is read from; nil for a shape.
        var file: String? {
            if case .path(let path) = source { path } else { nil }
        }

        /// Whether it is compiled already.
        var isEngine: Bool { path.hasSuffix(".martlet") }

        /// Longest context that it was made for; nil for a shape, which has the context asked for.
        func longestContext() throws -> Int? {
            guard case .path(let path) = source else { return nil }
            return try LanguageModel.longestContext(path)
        }

        /// Its tokenizer.
        func textTokens() throws -> (String) -> [Int32] {
            guard case .path(let path) = source else {
                throw MartletError(
                    .unsupported, "the shape \(name) has no tokenizer",
                    mend: "Give token ids or lengths instead of text")
            }
            return try LanguageModel.textTokens(path)
        }

        /// Loads it; a preset is made in memory.
        func load(_ options: LoadOptions) throws -> LanguageModel {
            switch source {
            case .path(let path): try LanguageModel.load(path, options: options)
            case .preset(let preset): try LanguageModel.load(preset, options: options)
            }
        }

        /// Its engine before weights are packed; of an engine file, the one for other targets.
        func draft(_ options: LoadOptions) throws -> EngineDraft {
            switch source {
            case .path(let path): return try LanguageModel.draft(path, options: options)
            case .preset:
                let (builder, source) = try builder(options)
                return try builder.draft(source)
            }
        }

        /// What compiles it.
        func builder(_ options: LoadOptions) throws -> (EngineBuilder, EngineSource) {
            switch source {
            case .path(let path): try LanguageModel.builder(path, options: options)
            case .preset(let preset): try LanguageModel.builder(preset, options: options)
            }
        }
    }

    /// Finds the model, pulling it where it is missing.
    ///
    /// - Throws: `MartletError` `.invalidArgument` unless exactly one is named, and what the hub throws.
    func find() async throws -> Found {
        switch (model, preset) {
        case (let model?, nil):
            return Found(name: model, source: .path(try await ModelFinder.path(model)))
        case (nil, let preset?):
            let preset = try ModelPreset.named(preset)
            return Found(name: preset.name, source: .preset(preset))
        case (nil, nil):
            throw MartletError(
                .invalidArgument, "no model is named",
                mend: "Name one, such as smollm2, or a shape: --preset tinyllama-1.1b")
        case (let model?, let preset?):
            throw MartletError(
                .invalidArgument, "both a model (\(model)) and a preset (\(preset)) are named",
                mend: "Name one of them")
        }
    }
}
