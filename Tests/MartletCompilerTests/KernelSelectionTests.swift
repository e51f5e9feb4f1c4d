// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletTestSupport
import Testing

/// The CPU's catalog with other families.
struct ChangedCatalog: KernelCatalog {
    private let base = CPUCatalog()
    let families: [KernelFamily]

    /// Changes each family to some number of families.
    init(_ change: (KernelFamily) -> [KernelFamily]) {
        families = CPUCatalog().families.flatMap(change)
    }

    /// The CPU without some ops, for a reason.
    static func refusing(_ ops: Set<String>, _ reason: String) -> ChangedCatalog {
        ChangedCatalog { family in
            guard ops.contains(family.op) else { return [family] }
            var copy = family
            copy.evaluate = { _ in .refused(reason) }
            return [copy]
        }
    }

    var target: String { base.target }
    var assumedBytesPerSecond: Double { base.assumedBytesPerSecond }
    var kvBlockSize: Int { base.kvBlockSize }
    var kvTypes: [DType] { base.kvTypes }
    var activationTypes: [DType] { base.activationTypes }
    var defaultActivations: ActivationFormat? { base.defaultActivations }
    func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        base.rowBytes(format, columns: columns)
    }
    func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
        try base.pack(weight, layout: layout)
    }
    func unpack(
        _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
    ) throws -> WeightValue {
        try base.unpack(bytes, layout: layout, format: format, shape: shape)
    }
}

@Suite struct KernelSelectionTests {
    private let weights = RandomWeights(seed: 21)

    private func compile(
        _ catalog: any KernelCatalog, _ change: (inout Compiler.Options) -> Void = { _ in }
    ) throws -> CompiledModel {
        var options = Compiler.Options()
        change(&options)
        return try CompiledModel(
            TinyModels.llama(), weights: weights, options: options, catalog: catalog)
    }

    /// The CPU with a second family for activations of the feed-forward, of a given cost.
    private func withRival(seconds factor: Double) -> ChangedCatalog {
        ChangedCatalog { family in
            guard family.op == "gatedActivation" else { return [family] }
            var rival = family
            rival.name = "gatedActivation_rival"
            rival.evaluate = { query in
                guard case .accepted(var cost, let layouts) = family.evaluate(query) else {
                    return .refused("as the other")
                }
                cost.bytes = cost.bytes * Int(factor * 4)
                cost.operations = cost.operations * Int(factor * 4)
                return .accepted(cost: cost, layouts: layouts)
            }
            var dearer = family
            dearer.evaluate = { query in
                guard case .accepted(var cost, let layouts) = family.evaluate(query) else {
                    return family.evaluate(query)
                }
                cost.bytes = cost.bytes * 4
                cost.operations = cost.operations * 4
                return .accepted(cost: cost, layouts: layouts)
            }
            return [dearer, rival]
        }
    }

    @Test func costDecides() throws {
        for (factor, chosen) in [(0.5, "gatedActivation_rival"), (2.0, "gatedActivation")] {
            let choices = try compile(withRival(seconds: factor)).programs[0].emitted.choices
            let found = choices.filter { $0.op == "gatedActivation" }
            #expect(found.count == 2)
            for choice in found {
                #expect(choice.family == chosen)
                #expect(choice.candidates.count == 2)
                #expect(choice.candidates.allSatisfy { $0.refusal == nil && $0.seconds ?? 0 > 0 })
                let best = choice.candidates.min { $0.seconds ?? 0 < $1.seconds ?? 0 }
                #expect(best?.family == chosen)
            }
        }
    }

    @Test func refusedCandidatesCarryReasons() throws {
        let choices = try compile(CPUCatalog()).programs[0].emitted.choices
        let linears = choices.filter { $0.op == "linear" }
        #expect(linears.count == 9)
        for choice in linears {
            #expect(choice.candidates.contains { $0.family == choice.family && $0.refusal == nil })
            let refused = choice.candidates.filter { $0.seconds == nil }
            #expect(!refused.isEmpty)
            #expect(refused.allSatisfy { $0.refusal?.isEmpty == false })
        }
    }

    @Test(arguments: [
        ["gatedActivation"], ["addNorm"], ["cachedAttention"],
        ["gatedActivation", "addNorm", "cachedAttention"],
    ])
    func refusedFusionsAreDecomposed(_ ops: [String]) async throws {
        for coded in [false, true] {
            let model = try compile(ChangedCatalog.refusing(Set(ops), "not today")) {
                if coded {
                    $0.recipe.weights = .scheme(name: "int8") { _ in
                        QuantizationScheme(bits: 8, group: .group(32), scaleType: .f16)
                    }
                    $0.recipe.activations = .int8g64
                }
            }
            let found = Set(model.plans[0].steps.map(\.op))
            #expect(found.isDisjoint(with: ops))
            if ops.contains("cachedAttention") {
                #expect(found.isSuperset(of: ["rotary", "kvWrite", "attention"]))
            }
            var runner = StepRunner(try model.executor())
            let fused = try compile(CPUCatalog()) {
                if coded {
                    $0.recipe.weights = .scheme(name: "int8") { _ in
                        QuantizationScheme(bits: 8, group: .group(32), scaleType: .f16)
                    }
                    $0.recipe.activations = .int8g64
                }
            }
            var plain = StepRunner(try fused.executor())
            for step in EndToEndTests.steps(vocabulary: 96) {
                let (a, b) = (try await runner.run(step), try await plain.run(step))
                #expect(
                    Tolerance.difference(a.logits.flatMap { $0 }, b.logits.flatMap { $0 })
                        < (coded ? 0.1 : Tolerance.exactLogits))
            }
        }
    }

    @Test func wholeRowsAreCopiedWhereAsked() async throws {
        let model = try compile(
            ChangedCatalog { family in
                var copy = family
                if ["cachedAttention", "gatedActivation"].contains(family.op) {
                    copy.acceptsStridedOperands = false
                }
                return [copy]
            })
        let plan = model.plans[0]
        // q, k, v and gate, up of two layers.
        #expect(plan.steps.count { $0.op == "slice" } == 10)
        for step in plan.steps where step.op == "gatedActivation" {
            for operand in step.operands {
                guard case .buffer(let buffer, let offset, let columns) = operand else { continue }
                #expect(offset == 0 && columns == plan.buffers[buffer].columns)
            }
        }
        let error = try await EndToEndTests.error(
            TinyModels.llama(), weights: weights, runner: StepRunner(model.executor()))
        #expect(error < Tolerance.exactLogits)
    }

    @Test func whatNobodyComputesIsNamed() throws {
        let error = #expect(throws: MartletError.self) {
            try compile(ChangedCatalog.refusing(["norm"], "no norms on Sundays"))
        }
        #expect(error?.code == .unsupported)
        for text in ["norm", "layers.0.inputNorm", "no norms on Sundays"] {
            #expect(error?.message.contains(text) == true)
        }
        let missing = #expect(throws: MartletError.self) {
            try compile(ChangedCatalog { $0.op == "embedding" ? [] : [$0] })
        }
        #expect(missing?.message.contains("no family for this op") == true)
    }
}
