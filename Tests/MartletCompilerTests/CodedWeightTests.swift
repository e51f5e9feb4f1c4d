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

    /// Largest difference of a logit, and the fraction of rows that are equal but for rounding.
    private func compare(_ options: Compiler.Options) async throws -> (
        error: Double, equalRows: Double, model: CompiledModel
    ) {
        let llama = try TinyModels.llama(tied: true)
        let weights = RandomWeights(seed: 12)
        let model = try CompiledModel(llama, weights: weights, options: options)
        var runner = StepRunner(try model.executor())
        var reference = try ReferenceRunner(model.programs[0].graph, weights: weights)
        var largest = 0.0
        var (rowCount, equalCount) = (0, 0)
        for step in EndToEndTests.steps(vocabulary: 96) {
            let found = try await runner.run(step)
            let expected = try #require(try reference.run(step).outputs["logits"]).rows()
            #expect(found.logits.count == expected.count)
            for (a, b) in zip(found.logits, expected) {
                let gap = Tolerance.difference(a, b)
                largest = max(largest, gap)
                rowCount += 1
                if gap < Tolerance.exactLogits { equalCount += 1 }
            }
        }
        return (largest, Double(equalCount) / Double(rowCount), model)
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
        let (error, _, model) = try await compare(options(scheme, everything: true))
        #expect(error < Tolerance.exactLogits)
        // Embedding and head read one table in one layout.
        let names = model.plans[0].parameters.map(\.name)
        #expect(names.count { $0.hasPrefix("embedding.weight") } == 1)
        let matrices = model.plans[0].parameters.filter { $0.shape.count == 2 }
        #expect(matrices.allSatisfy { $0.format.hasPrefix(scheme.prefix(4)) })
    }

    /// A head of another format than the table that it is: each has weights of its own.
    @Test(
        arguments: [(nil, "int8"), ("int8", "int4:g32"), ("int4:g32", nil)]
            as [(String?, String?)])
    func aTiedHeadMayHaveItsOwnFormat(_ embedding: String?, _ head: String?) async throws {
        func weights(_ name: String?) throws -> PrecisionRecipe.Weights {
            guard let choice = try name.map({ try SchemeRegistry.choice($0) }) else {
                return .keep
            }
            return .scheme(name: choice.name, choice.scheme)
        }
        var options = Compiler.Options()
        options.recipe.embedding = try weights(embedding)
        options.recipe.head = try weights(head)
        let (error, _, model) = try await compare(options)
        #expect(error < Tolerance.exactLogits)
        let parameters = model.plans[0].parameters.filter { $0.shape == [96, 64] }
        func format(_ name: String) -> String? {
            parameters.first { $0.name.hasPrefix(name) }?.format
        }
        #expect(parameters.count == 2, "\(parameters)")
        #expect(format("embedding")?.hasPrefix(embedding?.prefix(4) ?? "f32") == true)
        #expect(format("head")?.hasPrefix(head?.prefix(4) ?? "f32") == true)
        // The same format again is one table again.
        options.recipe.head = options.recipe.embedding
        let tied = try await compare(options).model.plans[0].parameters
        #expect(tied.count { $0.shape == [96, 64] } == 1)
    }

    @Test(arguments: schemes)
    func entryPointsShareCodedWeights(_ scheme: String) throws {
        var options = try options(scheme, everything: true)
        options.recipe.activations = .int8g64
        let model = try CompiledModel(
            DecoderAndEmbedder(), weights: RandomWeights(), options: options)
        let known = Dictionary(
            model.plans[0].parameters.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        for parameter in model.plans[1].parameters {
            #expect(known[parameter.name] == parameter)
        }
    }

    @Test(arguments: schemes)
    func codedActivationsFollowReference(_ scheme: String) async throws {
        var options = try options(scheme, everything: false)
        options.recipe.activations = .int8g64
        let (error, equalRows, model) = try await compare(options)
        // A value near the middle between two codes may round either way, which changes it by
        // 1/127 of its group's largest; that is seen through two layers, and through the cache by
        // later rows of the request. It is rare: most rows are equal.
        #expect(error < 0.1 && equalRows > 0.5)
        // The op that makes the values codes them, but for the rows gathered after attention.
        let quantized = model.plans[0].steps.filter { $0.op == "quantize" }
        #expect(quantized.map(\.path) == ["layers.1.attention.output"])
    }
}
