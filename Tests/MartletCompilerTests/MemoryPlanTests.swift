// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletQuantization
import MartletTestSupport
import Testing

@Suite struct MemoryPlanTests {
    /// Pairs of buffers in one slot whose lifetimes meet: there must be none.
    private func clashes(
        _ slots: [Int], _ lifetimes: [MemoryPlan.Lifetime]
    ) -> [(Int, Int)] {
        var found: [(Int, Int)] = []
        for a in slots.indices {
            for b in slots.indices where b > a && slots[a] == slots[b] {
                if lifetimes[a].first <= lifetimes[b].last, lifetimes[b].first <= lifetimes[a].last
                {
                    found.append((a, b))
                }
            }
        }
        return found
    }

    @Test(arguments: 0..<40)
    func randomLifetimesNeverClash(_ seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let count = Int.random(in: 1...60, using: &random)
        var buffers: [PlanBuffer] = []
        var lifetimes: [MemoryPlan.Lifetime] = []
        for _ in 0..<count {
            let first = Int.random(in: 0..<40, using: &random)
            lifetimes.append(
                .init(first: first, last: first + Int.random(in: 0..<12, using: &random)))
            let columns = Int.random(in: 1...512, using: &random)
            buffers.append(
                PlanBuffer(
                    rows: [.T, .O, .B, 1].randomElement(using: &random) ?? .T, columns: columns,
                    format: "f32", rowBytes: columns * 4, slot: 0))
        }
        let (slots, slotCount) = MemoryPlan.assign(buffers, lifetimes)
        #expect(clashes(slots, lifetimes).isEmpty)
        #expect(Set(slots) == Set(0..<slotCount))
        // Interval graphs are perfect: no more slots than buffers alive at once.
        let crowd = (0..<60).map { step in
            lifetimes.count { $0.first <= step && step <= $0.last }
        }.max()
        #expect(slotCount == crowd)
    }

    /// First write and last read of each buffer, found from the steps alone.
    private func lifetimes(_ plan: Plan) throws -> [MemoryPlan.Lifetime] {
        var found = [MemoryPlan.Lifetime?](repeating: nil, count: plan.buffers.count)
        for (index, step) in plan.steps.enumerated() {
            for operand in step.operands {
                guard case .buffer(let buffer, _, _) = operand else { continue }
                try #require(found[buffer] != nil, "step \(index) reads what nothing wrote")
                found[buffer]?.last = index
            }
            for operand in step.results {
                guard case .buffer(let buffer, _, _) = operand else { continue }
                #expect(found[buffer] == nil, "buffer \(buffer) is written twice")
                found[buffer] = .init(first: index, last: index)
            }
        }
        for output in plan.outputs {
            guard case .buffer(let buffer, _, _) = output.operand else { continue }
            found[buffer]?.last = plan.steps.count
        }
        return try found.map { try #require($0) }
    }

    private func models() throws -> [CompiledModel] {
        let weights = RandomWeights()
        var tapped = Compiler.Options()
        tapped.taps = ["*"]
        var coded = Compiler.Options()
        let choice = try SchemeRegistry.choice("int4:g32")
        coded.recipe.weights = .scheme(name: choice.name, choice.scheme)
        coded.recipe.activations = .int8g64
        var plain = Compiler.Options()
        plain.disabledRules = Set(Pipeline.ruleNames)
        return try [Compiler.Options(), tapped, coded, plain].map {
            try CompiledModel(TinyModels.llama(), weights: weights, options: $0)
        } + [
            CompiledModel(AlternatingWindows(), weights: weights),
            CompiledModel(DecoderAndEmbedder(), weights: weights),
        ]
    }

    @Test func realPlansNeverClash() throws {
        for plan in try models().flatMap(\.plans) {
            #expect(clashes(plan.buffers.map(\.slot), try lifetimes(plan)).isEmpty)
            #expect(Set(plan.buffers.map(\.slot)) == Set(0..<plan.slotCount))
        }
        // Sharing happens: a decoder of two layers has far more buffers than slots.
        let plan = try #require(try models().first?.plans.first)
        #expect(plan.slotCount * 2 < plan.buffers.count)
    }

    @Test func plansReadBackFromJSON() throws {
        for plan in try models().flatMap(\.plans) {
            let json = try JSONEncoder().encode(plan)
            let back = try JSONDecoder().decode(Plan.self, from: json)
            #expect(back == plan)
            try back.validate()
        }
    }

    @Test func plansReadBackFromAnEngineFile() throws {
        let architecture = DecoderAndEmbedder()
        let model = try CompiledModel(architecture, weights: RandomWeights())
        let file = TemporaryFile()
        try model.write(to: file.path, summary: architecture.summary)
        let reader = try EngineFileReader.open(file.path)
        for plan in model.plans {
            #expect(try reader.plan(entryPoint: plan.entryPoint, for: EngineTarget("cpu")) == plan)
        }
        #expect(reader.manifest.parameters.map(\.name) == model.order.map(\.name))
    }

    @Test func parametersAppearOnce() throws {
        for plan in try models().flatMap(\.plans) {
            #expect(Set(plan.parameters.map(\.name)).count == plan.parameters.count)
        }
        // The tied table is read by embedding and head in the same layout.
        let tied = try CompiledModel(TinyModels.llama(tied: true), weights: RandomWeights())
        let plan = try #require(tied.plans.first)
        #expect(plan.parameters.count { $0.name.hasPrefix("embedding.weight") } == 1)
        let readers = plan.steps.filter { step in
            step.operands.contains { operand in
                guard case .parameter(let index) = operand else { return false }
                return plan.parameters[index].name == "embedding.weight"
            }
        }
        #expect(readers.map(\.op) == ["embedding", "linear"])
        // Merged weights name their parts.
        let request = tied.programs[0].emitted.parameters.first { $0.name.hasSuffix("qkv.weight") }
        #expect(
            request?.expression?.names == ["q", "k", "v"].map { "layers.0.attention.\($0).weight" })
        #expect(request?.expression?.shape == request?.shape)
    }

    @Test func compilingTwiceGivesTheSamePlan() throws {
        for (a, b) in zip(try models(), try models()) {
            #expect(a.plans == b.plans)
            #expect(a.order == b.order)
        }
    }
}
