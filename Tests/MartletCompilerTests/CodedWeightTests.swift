// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletQuantization
import MartletReference
import MartletTestSupport
import Testing

/// Quantized engines compute what their own graphs say.
@Suite struct CodedWeightTests {
    static let schemes = ["int8", "int8:g32", "int4:g32", "int4:g32:asym", "int4:g32:zero"]

    private func error(_ options: Compiler.Options) async throws -> (Double, CompiledModel) {
        let llama = try TinyModels.llama(tied: true)
        let weights = RandomWeights(seed: 12)
        let model = try CompiledModel(llama, weights: weights, options: options)
        var runner = StepRunner(try model.executor())
        var reference = try ReferenceRunner(model.programs[0].graph, weights: weights)
        var largest = 0.0
        for step in EndToEndTests.steps(vocabulary: 96) {
            let found = try await runner.run(step)
            let gap = Tolerance.difference(
                found.logits.flatMap { $0 }, try reference.run(step).floats("logits"))
            largest = max(largest, gap)
        }
        return (largest, model)
    }

    private func options(_ scheme: String, everything: Bool) throws -> Compiler.Options {
        let choice = try SchemeRegistry.choice(scheme)
        var options = Compiler.Options()
        options.recipe.weights = .scheme(name: choice.name, choice.scheme)
        if everything { options.recipe.embedding = options.recipe.weights }
        return options
    }

    @Test(arguments: schemes)
    func exactActivationsEqualReference(_ scheme: String) async throws {
        let (error, model) = try await error(options(scheme, everything: true))
        #expect(error < Tolerance.exactLogits)
        let matrices = model.plans[0].parameters.filter { $0.shape.count == 2 }
        #expect(matrices.allSatisfy { $0.format.hasPrefix(scheme.prefix(4)) })
    }

    @Test(arguments: schemes)
    func codedActivationsFollowReference(_ scheme: String) async throws {
        var options = try options(scheme, everything: false)
        options.recipe.activations = .int8g64
        let (error, model) = try await error(options)
        // A value near the middle between two codes may round either way: 1/254 of a group's
        // largest, seen through two layers.
        #expect(error < 0.1)
        // The op that makes the values codes them, but for the rows gathered after attention.
        let quantized = model.plans[0].steps.filter { $0.op == "quantize" }
        #expect(quantized.map(\.path) == ["layers.1.attention.output"])
    }
}
