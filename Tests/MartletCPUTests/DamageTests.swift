// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import Testing

@Suite struct DamageTests {
    /// Loads a damaged plan: an error of a kind that says so, never a trap.
    private func expectRefusal(
        _ what: String, _ damage: (inout PlanSketch) -> Void,
        location: SourceLocation = #_sourceLocation
    ) throws {
        var sketch = try TinyModel(seed: 9).sketch()
        damage(&sketch)
        do {
            _ = try sketch.executor()
            Issue.record("\(what) was accepted", sourceLocation: location)
        } catch let error as MartletError {
            #expect(
                [.corrupt, .unsupported, .limitExceeded].contains(error.code), "\(what): \(error)",
                sourceLocation: location)
        }
    }

    @Test func damagedPlansAreRefused() throws {
        try expectRefusal("another target") { $0.plan.target = "cuda" }
        try expectRefusal("a slot out of range") { $0.plan.buffers[1].slot = 99 }
        try expectRefusal("a negative slot") { $0.plan.buffers[1].slot = -1 }
        try expectRefusal("short rows") { $0.plan.buffers[1].rowBytes = 4 }
        try expectRefusal("odd rows") { $0.plan.buffers[1].rowBytes += 1 }
        try expectRefusal("huge rows") { $0.plan.buffers[1].rows = Dimension(tokens: .max) }
        try expectRefusal("negative rows") { $0.plan.buffers[1].rows = Dimension(tokens: -1) }
        try expectRefusal("huge columns") { $0.plan.buffers[1].columns = .max }
        try expectRefusal("an unknown format") { $0.plan.buffers[1].format = "f7" }
        try expectRefusal("a huge slot count") { $0.plan.slotCount = .max }
        try expectRefusal("an unknown op") { $0.plan.steps[3].op = "divine" }
        try expectRefusal("an unknown kernel") {
            $0.plan.steps[2].variants = [PlanVariant(kernel: "x")]
        }
        try expectRefusal("a missing operand") { $0.plan.steps[2].operands = [] }
        try expectRefusal("columns beyond a buffer") {
            $0.plan.steps[3].operands[0] = .buffer(2, offset: .max, columns: 48)
        }
        try expectRefusal("a parameter out of range") {
            $0.plan.steps[2].operands[1] = .parameter(-1)
        }
        try expectRefusal("missing bytes") { $0.bytes["qkv"] = nil }
        try expectRefusal("short bytes") { $0.bytes["qkv"] = ByteView(count: 64) { _ in } }
        try expectRefusal("a wrong shape") { $0.plan.parameters[2].shape = [80, 49] }
        try expectRefusal("a negative shape") { $0.plan.parameters[2].shape = [-1, 48] }
        try expectRefusal("an unknown layout") { $0.plan.parameters[2].layout = "panel17.f32" }
        try expectRefusal("a wrong layer") { $0.plan.steps[3].attributes["layer"] = 1 }
        try expectRefusal("a wrong group") { $0.plan.steps[3].attributes["group"] = 1 }
        try expectRefusal("no group") { $0.plan.kvGroups = [] }
        try expectRefusal("a wrong head size") { $0.plan.steps[3].attributes["headDim"] = 16 }
        try expectRefusal("a negative window") { $0.plan.steps[3].attributes["window"] = -4 }
        try expectRefusal("odd blocks") { $0.plan.kvGroups[0].blockSize = 17 }
        try expectRefusal("huge layers") { $0.plan.kvGroups[0].layerCount = .max }
        try expectRefusal("an output nowhere") { $0.plan.outputs[0].operand = .none }
        try expectRefusal("input of another name") {
            $0.plan.steps[0].operands[1] = .input("positions")
        }
        try expectRefusal("logits of all tokens") { sketch in
            for index in sketch.plan.buffers.indices where sketch.plan.buffers[index].rows == .O {
                sketch.plan.buffers[index].rows = .T
            }
        }
    }

    /// Any one number of a plan changed at random: an error or a plan that runs, never a trap.
    @Test(arguments: 0..<40) func randomDamageNeverTraps(seed: UInt64) async throws {
        var random = SeededRandom(seed)
        let strange = [-1, 0, 1, 7, 1 << 20, 1 << 33, Int.max, Int.min]
        for _ in 0..<25 {
            var sketch = try TinyModel(seed: 9).sketch()
            let number = strange.randomElement(using: &random) ?? 0
            let index = Int.random(in: 0..<sketch.plan.steps.count, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: sketch.plan.buffers[index % sketch.plan.buffers.count].columns = number
            case 1: sketch.plan.buffers[index % sketch.plan.buffers.count].slot = number
            case 2:
                if let name = sketch.plan.steps[index].attributes.keys.sorted().randomElement(
                    using: &random)
                {
                    sketch.plan.steps[index].attributes[name] = .int(number)
                }
            case 3:
                sketch.plan.parameters[index % sketch.plan.parameters.count].shape = [number, 48]
            case 4: sketch.plan.steps[index].operands.shuffle(using: &random)
            default: sketch.plan.buffers[index % sketch.plan.buffers.count].rows.constant = number
            }
            guard let executor = try? sketch.executor(tokens: 16) else { continue }
            let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
            try executor.fill(
                record,
                [WorkItem(tokens: [1, 2, 3], start: 0, pages: [0], sampling: SamplingParameters())])
            let outputs = try? await executor.run(record)
            if let outputs { #expect(outputs.tokens.count == 1) }
        }
    }

    @Test func damagedRecordsAreRefused() async throws {
        let executor = try TinyModel(seed: 9, window: 8).sketch().executor()
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        let fine = WorkItem(tokens: [1, 2], start: 0, pages: [3])
        func refused(
            _ what: String, _ item: WorkItem, _ damage: (StepRecord) throws -> Void = { _ in }
        )
            async throws
        {
            try executor.fill(record, [item])
            try damage(record)
            await #expect(throws: MartletError.self, "\(what)") { try await executor.run(record) }
        }
        var item = fine
        item.tokens = [1, 70]
        try await refused("an id of V", item)
        item.tokens = [1, -1]
        try await refused("a row of no step before", item)
        item = fine
        item.pages = [64]
        try await refused("a block beyond the arena", item)
        item.pages = [-1]
        try await refused("no block", item)
        item = WorkItem(tokens: [1], start: 256, pages: [Int32](repeating: 0, count: 17))
        try await refused("a position beyond the context", item)
        try await refused("no entry point", fine) { $0.begin(stream: 1, number: 0) }
        try await refused("no tokens", fine) { $0.setCounts(tokens: 0, requests: 1, logitRows: 0) }
        try await refused("too many tokens", fine) {
            $0.setCounts(tokens: 65, requests: 1, logitRows: 0)
        }
        try await refused("more tokens than written", fine) {
            $0.setCounts(tokens: 40, requests: 1, logitRows: 0)
        }
        try await refused("a draft's row", fine) {
            try $0.add(.rowUse, UInt32.self, count: 1)[0] = RowUse.verify.rawValue
        }
        try await refused("an adapter", fine) { try $0.add(.adapter, count: 1)[0] = 0 }
        try await refused("a copy in no KV group", fine) {
            let operations = try $0.add(.blockOperations, BlockOperation.self, count: 1)
            operations[0] = BlockOperation(kind: .copy, group: 9, source: 0, destination: 1)
            $0.setBlockOperationCount(1)
        }
        try await refused("a swap", fine) {
            let operations = try $0.add(.blockOperations, BlockOperation.self, count: 1)
            operations[0] = BlockOperation(kind: .swapOut, group: 0, source: 0, destination: 0)
            $0.setBlockOperationCount(1)
        }
        try executor.fill(record, [fine])
        let outputs = try await executor.run(record)
        #expect(outputs.logits.count == 1)
    }
}
