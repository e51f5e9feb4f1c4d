// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

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

/// Two entry points that share a KV group: one writes what the other reads.
@Suite struct EncoderDecoderTests {
    private let weights = RandomWeights(seed: 21)
    private static let names = ["decode", "encode"]

    private func executor() throws -> CPUExecutor {
        let model = try CompiledModel(EncoderDecoder(), weights: weights)
        let file = TemporaryFile()
        try model.write(to: file.path, summary: EncoderDecoder().summary)
        return try CompiledModel.load(file.path, entryPoints: Self.names)
    }

    private func reference() throws -> ReferenceRunner {
        try ReferenceRunner(Self.names.map { try EncoderDecoder().trace($0) }, weights: weights)
    }

    @Test func groupsBelongToTheEngine() throws {
        let executor = try executor()
        #expect(executor.kvGroups.map(\.name) == ["self", "cross", "encoder"])
        #expect(
            executor.groupUses == [
                [
                    KVGroupUse(group: 0, isWritten: true), KVGroupUse(group: 1, isWritten: false),
                ],
                [KVGroupUse(group: 1, isWritten: true), KVGroupUse(group: 2, isWritten: true)],
            ])
        // Blocks are cut for the pages of the engine, not of one entry point: one layer beside two.
        #expect(executor.kvGroups.map(\.blockSize) == [16, 16, 32])
    }

    /// Two requests with prompts of different lengths; answers longer and shorter than they.
    @Test func decodeReadsWhatEncodeWrote() async throws {
        var runner = StepRunner(try executor())
        var reference = try reference()
        var random = SeededRandom(seed: 22)
        func tokens(_ count: Int) -> [Int32] { random.tokens(count, below: 80) }
        let prompts = [StepPart(0, tokens(41)), StepPart(1, tokens(3))]
        _ = try await runner.run(prompts, stream: 1, wantsLogits: false)
        _ = try reference.run(prompts, stream: 1)
        let steps = [
            [StepPart(0, tokens(5))], [StepPart(0, tokens(1)), StepPart(1, tokens(20))],
            [StepPart(0, tokens(1)), StepPart(1, tokens(1))], [StepPart(1, tokens(33))],
        ]
        for step in steps {
            let found = try await runner.run(step)
            let expected = try reference.run(step).floats("logits")
            #expect(
                Tolerance.difference(found.logits.flatMap { $0 }, expected)
                    < Tolerance.exactLogits)
        }
    }

    /// Another prompt, other logits: the comparison above can fail.
    @Test func thePromptMatters() throws {
        var results: [[Float]] = []
        for prompt: [Int32] in [[1, 2, 3], [3, 2, 1]] {
            var reference = try reference()
            _ = try reference.run([StepPart(0, prompt)], stream: 1)
            results.append(try reference.run([StepPart(0, [5, 6])]).floats("logits"))
        }
        #expect(Tolerance.difference(results[0], results[1]) > 0.01)
    }

    @Test func withoutAnEncodedPromptTheStepIsRefused() async throws {
        var runner = StepRunner(try executor())
        let error = await #expect(throws: MartletError.self) {
            try await runner.run([StepPart(0, [1])])
        }
        #expect(error?.message.contains("'cross'") == true)
    }

    /// What an entry point only reads is no dead code of the one that writes it.
    @Test func writesWithoutReadersAreKept() throws {
        let model = try CompiledModel(EncoderDecoder(), weights: weights)
        #expect(model.plans[1].steps.count { $0.op == "kvWrite" } == 2)
        #expect(model.plans[1].outputs.isEmpty)
        #expect(model.plans[0].steps.count { $0.op == "attention" } == 2)
        let kept = model.programs.map(\.kept)
        #expect(kept[0].text.contains("kv name=cross layers=2"))
        for graph in kept {
            let read = try Compiler.readGraph(
                graph.text, entryPoint: graph.name, constants: graph.constants)
            #expect(read.text == graph.text && read.kvGroups == graph.kvGroups)
        }
    }

    @Test func aGroupOfTwoDescriptionsIsRefused() throws {
        var graphs = try Self.names.map { try EncoderDecoder().trace($0) }
        for index in graphs[1].kvGroups.indices { graphs[1].kvGroups[index].scheme.dtype = .f16 }
        let compiled = #expect(throws: MartletError.self) {
            try Compiler.emit(graphs, for: CPUCatalog())
        }
        #expect(compiled?.code == .unsupported)
        let model = try CompiledModel(EncoderDecoder(), weights: weights)
        var plans = model.plans
        plans[1].kvGroups[0].headDim = 8
        let loaded = #expect(throws: MartletError.self) {
            try CompiledModel.executor(plans: plans, parameters: model.parameters)
        }
        #expect(loaded?.code == .corrupt)
        for part in ["'decode'", "'encode'", "'cross'", "dim=8", "dim=16"] {
            #expect(loaded?.message.contains(part) == true, "\(part)")
        }
    }

    @Test func causalAttentionOverAnEncoderIsRefused() throws {
        let model = try CompiledModel(EncoderDecoder(), weights: weights)
        var plans = model.plans
        for index in plans[0].steps.indices where plans[0].steps[index].op == "attention" {
            plans[0].steps[index].attributes["causal"] = true
        }
        let error = #expect(throws: MartletError.self) {
            try CompiledModel.executor(plans: plans, parameters: model.parameters)
        }
        #expect(error?.code == .corrupt && error?.message.contains("causal") == true)
    }
}
