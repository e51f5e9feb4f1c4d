// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCPU
import MartletModels

extension LanguageModel {
    /// Makes a model of a preset's shape with random weights, in memory.
    ///
    /// Weights are made in the format of the engine and nowhere else: no checkpoint, no file.
    ///
    /// - Parameters:
    ///   - preset: The shape.
    ///   - options: How it is compiled and run; `keep` stands for bf16, as such models are published.
    /// - Throws: `MartletError` if the model cannot be compiled or does not fit memory.
    public static func load(
        _ preset: ModelPreset, options: LoadOptions = LoadOptions()
    ) throws -> LanguageModel {
        let (builder, source) = try builder(preset, options: options)
        return try LanguageModel(engine: builder.draft(source).inMemory(), options: options)
    }

    /// The builder of a preset.
    package static func builder(
        _ preset: ModelPreset, options: LoadOptions
    ) throws -> (EngineBuilder, EngineSource) {
        let builder = try EngineBuilder(
            architecture: try preset.reaching(options.maxContext).model(options.architectures),
            weights: PresetWeights(),
            options: options)
        return (builder, EngineSource(name: preset.name))
    }
}
