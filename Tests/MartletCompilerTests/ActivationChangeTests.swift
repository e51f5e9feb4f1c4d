// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletGraph
import MartletModels
import MartletTestSupport
import Testing

/// Kept graphs whose activations change: what a build with the other format would have kept.
@Suite struct ActivationChangeTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let disabledRules: Set<String>
        let model: @Sendable () throws -> any ModelArchitecture
        var testDescription: String { name }

        init(
            _ name: String, disabledRules: Set<String> = [],
            _ model: @escaping @Sendable () throws -> any ModelArchitecture
        ) {
            self.name = name
            self.disabledRules = disabledRules
            self.model = model
        }
    }

    static let cases = [
        Case("llama") { try TinyModels.llama() },
        Case("tied") { try TinyModels.llama(tied: true) },
        Case("two windows") { AlternatingWindows() },
        Case("two entry points") { DecoderAndEmbedder() },
        Case("encoder and decoder") { EncoderDecoder() },
        Case("no fusion", disabledRules: Set(Pipeline.ruleNames)) { try TinyModels.llama() },
        Case("no fusion of codes", disabledRules: ["quantize-in-producer"]) {
            try TinyModels.llama()
        },
    ]
    private let weights = RandomWeights(seed: 41)

    private func compile(
        _ item: Case, _ format: ActivationFormat?
    ) throws -> CompiledModel {
        var options = Compiler.Options()
        let scheme = QuantizationScheme(bits: 8, group: .group(32), scaleType: .f16)
        options.recipe.weights = .scheme(name: "int8") { _ in scheme }
        options.recipe.activations = format
        options.disabledRules = item.disabledRules
        return try CompiledModel(item.model(), weights: weights, options: options)
    }

    @Test(arguments: cases, [ActivationFormat.int8g64, nil])
    func equalWhatABuildWouldKeep(_ item: Case, _ format: ActivationFormat?) throws {
        let built = try compile(item, format)
        let other = try compile(item, format == nil ? .int8g64 : nil)
        let changed = try other.programs.map {
            try Compiler.changeActivations(
                of: $0.kept, to: format, disabledRules: item.disabledRules)
        }
        #expect(changed.map(\.text) != other.programs.map(\.kept.text))
        let plans = try Compiler.emit(
            changed, for: CPUCatalog(), disabledRules: item.disabledRules
        ).plans
        for (plan, expected) in zip(plans, built.plans) {
            #expect(plan.steps.map(\.family) == expected.steps.map(\.family))
            #expect(plan.buffers == expected.buffers && plan.outputs == expected.outputs)
            // The same packed weights serve both.
            #expect(Set(plan.parameters) == Set(expected.parameters))
        }
        let all = Set(other.plans.flatMap(\.parameters))
        #expect(all == Set(built.plans.flatMap(\.parameters)))
        // And once more there is nothing to change.
        for graph in changed {
            let again = try Compiler.changeActivations(
                of: graph, to: format, disabledRules: item.disabledRules)
            #expect(again.text == graph.text)
        }
    }

    @Test(arguments: [ActivationFormat.int8g64, nil])
    func numbersAreThoseOfTheBuild(_ format: ActivationFormat?) async throws {
        let built = try compile(Self.cases[0], format)
        let other = try compile(Self.cases[0], format == nil ? .int8g64 : nil)
        let changed = try Compiler.changeActivations(of: other.programs[0].kept, to: format)
        let plans = try Compiler.emit([changed], for: CPUCatalog()).plans
        var random = SeededRandom(seed: 42)
        let steps = [[StepPart(0, random.tokens(23, below: 96))], [StepPart(0, [5])]]
        var found = StepRunner(
            try CompiledModel.executor(plans: plans, parameters: other.parameters))
        var expected = StepRunner(try built.executor())
        var before = StepRunner(try other.executor())
        for step in steps {
            let logits = try await found.run(step).logits
            let (same, other) = (try await expected.run(step), try await before.run(step))
            #expect(same.logits == logits && other.logits != logits)
        }
    }
}
