// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletGraph
import MartletModels
import MartletReference
import MartletTestSupport
import Testing

/// From a traced model to numbers: compiled plans on the CPU against the reference.
@Suite struct EndToEndTests {
    /// Two requests, mixed prefill and decode, past the windows and several KV blocks.
    static func steps(vocabulary: Int32) -> [[StepPart]] {
        var random = SeededRandom(seed: 4)
        func part(_ request: Int, _ count: Int) -> StepPart {
            StepPart(request, random.tokens(count, below: vocabulary))
        }
        return [
            [part(0, 33)], [part(0, 1), part(1, 21)], [part(0, 1), part(1, 1)], [part(1, 30)],
            [part(0, 17), part(1, 1)], [part(0, 1)],
        ]
    }

    /// The largest difference of logits over all steps; checks that greedy tokens agree with them.
    static func error(
        _ architecture: any ModelArchitecture, weights: any WeightProvider, runner: StepRunner
    ) async throws -> Double {
        var runner = runner
        var reference = try ReferenceRunner(architecture.trace(), weights: weights)
        var largest = 0.0
        for step in steps(vocabulary: Int32(architecture.summary.vocabularySize)) {
            let found = try await runner.run(step)
            let expected = try reference.run(step)
            largest = max(
                largest,
                Tolerance.difference(
                    found.logits.flatMap { $0 }, try expected.floats("logits")))
            for (row, token) in zip(found.logits, found.tokens) where token >= 0 {
                #expect(row[Int(token)] == row.max())
            }
            #expect(found.tokens.count { $0 >= 0 } == step.count)
        }
        return largest
    }

    @Test(arguments: [(4, 4, false), (4, 2, false), (4, 1, true), (6, 3, true)])
    func llamaEqualsReference(_ heads: Int, _ kvHeads: Int, _ tied: Bool) async throws {
        let llama = try TinyModels.llama(headCount: heads, kvHeadCount: kvHeads, tied: tied)
        let weights = RandomWeights(seed: 3)
        let model = try CompiledModel(llama, weights: weights)
        let error = try await Self.error(
            llama, weights: weights, runner: StepRunner(model.executor()))
        #expect(error < Tolerance.exactLogits)
    }

    @Test func twoWindowsFromAnEngineFile() async throws {
        let architecture = AlternatingWindows()
        let weights = RandomWeights(seed: 5)
        let model = try CompiledModel(architecture, weights: weights)
        #expect(model.plans[0].kvGroups.map(\.window) == [20, 37])
        let file = TemporaryFile()
        try model.write(to: file.path, summary: architecture.summary)
        let executor = try CompiledModel.load(file.path, entryPoints: ["decode"])
        let error = try await Self.error(
            architecture, weights: weights, runner: StepRunner(executor))
        #expect(error < Tolerance.exactLogits)
    }

    @Test func windowsMatter() throws {
        // The comparison above must be able to fail: without windows the numbers differ.
        let weights = RandomWeights(seed: 5)
        var graph = try AlternatingWindows().trace()
        var windowed = try ReferenceRunner(graph, weights: weights)
        for node in graph.nodes where node.op == "attention" {
            graph.update(node.id) { $0.attributes["window"] = 0 }
        }
        var open = try ReferenceRunner(graph, weights: weights)
        var random = SeededRandom(seed: 1)
        let step = [StepPart(0, random.tokens(50, below: 80))]
        let gap = Tolerance.difference(
            try windowed.run(step).floats("logits"), try open.run(step).floats("logits"))
        #expect(gap > 0.01)
    }

    @Test func secondEntryPointFromAnEngineFile() async throws {
        let architecture = DecoderAndEmbedder()
        let weights = RandomWeights(seed: 6)
        let model = try CompiledModel(architecture, weights: weights)
        #expect(model.plans.map(\.entryPoint) == ["decode", "embed"])
        // Both entry points use the same weights, stored once.
        let shared = Set(model.plans[1].parameters.map(\.name))
        #expect(shared.isSubset(of: model.plans[0].parameters.map(\.name)))
        #expect(model.order.count == Set(model.order.map(\.name)).count)
        let file = TemporaryFile()
        try model.write(to: file.path, summary: architecture.summary)
        let executor = try CompiledModel.load(file.path, entryPoints: ["decode", "embed"])
        #expect(executor.kvGroups == model.plans[0].kvGroups && executor.kvGroups.count == 1)
        let error = try await Self.error(
            architecture, weights: weights, runner: StepRunner(executor))
        #expect(error < Tolerance.exactLogits)

        var runner = StepRunner(executor, stream: 1)
        var reference = try ReferenceRunner(architecture.trace("embed"), weights: weights)
        var random = SeededRandom(seed: 8)
        let step = [
            StepPart(0, random.tokens(19, below: 80)), StepPart(1, random.tokens(5, below: 80)),
        ]
        let found = try await runner.run(step, wantsLogits: false)
        let rows = try #require(found.named["embedding"])
        #expect(rows.count == 2)
        let gap = Tolerance.difference(
            rows.flatMap { $0 }, try reference.run(step).floats("embedding"))
        #expect(gap < Tolerance.sameMathematics)
        for row in rows { #expect(abs(row.reduce(0) { $0 + $1 * $1 } - 1) < 1e-5) }
    }

    @Test(arguments: [DType.f16, .bf16])
    func narrowActivationsStayNear(_ dtype: DType) async throws {
        let llama = try TinyModels.llama()
        let weights = RandomWeights(seed: 3)
        var options = Compiler.Options()
        options.recipe = PrecisionRecipe(dtype: dtype, kvType: dtype)
        let model = try CompiledModel(llama, weights: weights, options: options)
        let error = try await Self.error(
            llama, weights: weights, runner: StepRunner(model.executor()))
        // Logits of size 2 after a dozen roundings to 11 or 8 bits a layer.
        #expect(error < (dtype == .f16 ? 0.03 : 0.25) && error > Tolerance.exactLogits)
    }
}

/// A path that nothing exists at, removed at the end.
final class TemporaryFile: Sendable {
    let path: String

    init() {
        path =
            FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-compiler-\(UUID().uuidString).martlet").path
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
