// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCore
import MartletRuntime
import Testing

/// Shapes without checkpoints.
@Suite struct PresetTests {
    private func options(_ quantize: String) -> LoadOptions {
        var options = LoadOptions()
        options.engineCache = nil
        options.quantize = quantize
        options.maxContext = 64
        options.maxBatchSize = 2
        return options
    }

    private func answer(_ model: LanguageModel) throws -> [Int32] {
        var settings = SamplingSettings()
        settings.maxTokens = 6
        let output = try model.generateBatch([
            GenerationRequest(prompt: [1, 77, 300, 12], settings: settings)
        ])[0]
        if let failure = output.failure { throw failure }
        return output.tokens
    }

    /// Random weights of all kinds run: finite logits, the same tokens every time.
    @Test(arguments: ["keep", "none", "int8", "int4", "int4:g32:asym", "int8:g64:zero"])
    func aShapeRunsInAnyPrecision(quantize: String) throws {
        let preset = try ModelPreset.named("smollm2-135m")
        let first = try answer(LanguageModel.load(preset, options: options(quantize)))
        let second = try answer(LanguageModel.load(preset, options: options(quantize)))
        #expect(first == second)
        #expect(first.count == 6)
    }

    /// Sizes by the models' cards, in millions of parameters.
    @Test(arguments: [
        ("smollm2-135m", 134.5), ("tinyllama-1.1b", 1100.0), ("llama-3b", 3212.7),
        ("llama-7b", 6738.4), ("mistral-7b", 7241.7), ("qwen2-7b", 7615.6),
        ("baichuan2-7b", 7506.0), ("baichuan2-13b", 13_896.7),
    ])
    func parametersAreThoseOfThePublishedModel(name: String, millions: Double) throws {
        let preset = try ModelPreset.named(name)
        guard ModelRegistry.builtIn.names.contains(preset.architecture) else { return }
        let graph = try preset.model().trace()
        let count = graph.nodes.filter { $0.op == "parameter" }.reduce(0) {
            $0 + ($1.results[0].fixedShape ?? []).reduce(1, *)
        }
        #expect(abs(Double(count) / 1e6 - millions) < 0.001 * millions, "\(count)")
    }

    @Test func anUnknownPresetListsThoseThereAre() {
        let error = #expect(throws: MartletError.self) { try ModelPreset.named("llama-1t") }
        #expect(error?.mend?.contains("tinyllama-1.1b") == true)
    }
}
