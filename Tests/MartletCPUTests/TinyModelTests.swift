// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import Synchronization
import Testing

@Suite struct TinyModelTests {
    private let first: [Int32] = (0..<41).map { Int32(($0 * 29 + 3) % 70) }
    private let second: [Int32] = (0..<25).map { Int32(($0 * 17 + 11) % 70) }
    /// Pages in no order, so that block tables are used.
    private let firstPages: [Int32] = [7, 2, 9]
    private let secondPages: [Int32] = [1, 30]

    /// Runs both requests in steps: the first whole or in chunks, the second joining later.
    private func run(_ executor: CPUExecutor, chunks: [Int]) async throws -> (
        first: [[Float]], second: [[Float]]
    ) {
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        var (a, b): ([[Float]], [[Float]]) = ([], [])
        var done = 0
        var other = 0
        for (index, chunk) in chunks.enumerated() {
            var items = [
                WorkItem(
                    tokens: Array(first[done..<done + chunk]), start: done, pages: firstPages,
                    allLogits: true)
            ]
            // The second request prefills 20 tokens beside the first's second step, then decodes.
            let part = index == 0 ? 0 : min(index == 1 ? 20 : 1, second.count - other)
            if part > 0 {
                items.append(
                    WorkItem(
                        tokens: Array(second[other..<other + part]), start: other,
                        pages: secondPages, allLogits: true))
            }
            try executor.fill(record, items)
            let outputs = try await executor.run(record)
            a += outputs.logits[..<chunk]
            b += outputs.logits[chunk...]
            done += chunk
            other += part
        }
        return (a, b)
    }

    @Test(arguments: [nil, 5, 16] as [Int?])
    func logitsEqualPlainComputation(window: Int?) async throws {
        let model = TinyModel(seed: 1, window: window)
        let executor = try model.sketch().executor()
        let found = try await run(executor, chunks: [30, 1, 1, 1, 8])
        #expect(difference(found.first, model.logits(first)) < 1e-4)
        #expect(found.second.count == 23)
        #expect(difference(found.second, Array(model.logits(second).prefix(23))) < 1e-4)
    }

    @Test func chunksAndThreadsAndPlainOpsChangeNoBit() async throws {
        let model = TinyModel(seed: 2, window: 20)
        let base = try await run(try model.sketch().executor(threads: 2), chunks: [40, 1])
        let cases: [(threads: Int, chunks: [Int], fused: Bool)] = [
            (1, [41], true), (2, [1, 39, 1], true), (3, [7, 7, 7, 7, 7, 6], true),
            (2, [40, 1], false), (7, [30, 9, 2], true),
        ]
        for (threads, chunks, fused) in cases {
            let executor = try model.sketch(fused: fused).executor(threads: threads)
            let found = try await run(executor, chunks: chunks)
            #expect(
                bits(found.first) == bits(base.first), "\(threads) threads, \(chunks), \(fused)")
            let count = min(found.second.count, base.second.count)
            #expect(
                bits(Array(found.second[..<count])) == bits(Array(base.second[..<count])),
                "\(threads) threads, \(chunks), \(fused), beside")
        }
        for isa in CPUInstructionSet.available {
            let executor = try model.sketch().executor(instructionSet: isa)
            let found = try await run(executor, chunks: [40, 1])
            #expect(bits(found.first) == bits(base.first), "\(isa)")
        }
    }

    @Test func codedAttentionEqualsAttentionThenQuantize() async throws {
        let model = TinyModel(seed: 8)
        let fused = try await run(
            try model.sketch(rounding: .inside).executor(threads: 2), chunks: [41])
        let apart = try await run(
            try model.sketch(rounding: .after).executor(threads: 1), chunks: [20, 21])
        #expect(bits(fused.first) == bits(apart.first))
        let exact = try await run(try model.sketch().executor(), chunks: [41])
        #expect(bits(fused.first) != bits(exact.first))
    }

    @Test func blocksOfMoreTokensChangeNoBit() async throws {
        let model = TinyModel(seed: 3)
        let small = try await run(try model.sketch().executor(), chunks: [41])
        let large = try await run(try model.sketch(blockSize: 32).executor(), chunks: [41])
        #expect(bits(small.first) == bits(large.first))
    }

    @Test(arguments: [DType.f16, .bf16])
    func narrowTypesStayNear(type: DType) async throws {
        let model = TinyModel(seed: 4)
        let executor = try model.sketch(activations: type, kv: type).executor()
        let found = try await run(executor, chunks: [41])
        let gap = difference(found.first, model.logits(first))
        #expect(gap < (type == .f16 ? 0.01 : 0.08))
        #expect(gap > 1e-6, "the buffers are not \(type)")
    }

    @Test func twoStepsInFlightPassTokensOn() async throws {
        let model = TinyModel(seed: 5)
        let executor = try model.sketch().executor()
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        let next = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        let greedy = SamplingParameters()
        try executor.fill(
            record, [WorkItem(tokens: first, start: 0, pages: firstPages, sampling: greedy)])
        try executor.fill(
            next, [WorkItem(tokens: [-1], start: 41, pages: firstPages, sampling: greedy)])
        // Both are under way before the first completes; the second names the first's token.
        let (outputs, after) = (StepOutputs(), StepOutputs())
        let order = Mutex<[Int]>([])
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            do {
                try executor.submit(record, outputs: outputs) { _ in order.withLock { $0.append(1) }
                }
                try executor.submit(next, outputs: after) { _ in
                    order.withLock { $0.append(2) }
                    done.resume()
                }
            } catch {
                done.resume(throwing: error)
            }
        }
        #expect(order.withLock { $0 } == [1, 2])
        let token = try #require(outputs.tokens.first)
        let expected = model.logits(first + [token])
        #expect(difference(after.logits, [try #require(expected.last)]) < 1e-4)
        let row = try #require(outputs.logits.first)
        #expect(row[Int(token)] == row.max())
    }

    @Test func copiedBlocksContinueARequest() async throws {
        let model = TinyModel(seed: 6)
        let executor = try model.sketch().executor()
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        try executor.fill(
            record, [WorkItem(tokens: Array(first.prefix(20)), start: 0, pages: [3, 4])])
        _ = try await executor.run(record)
        try executor.fill(
            record, [WorkItem(tokens: [first[20]], start: 20, pages: [3, 12])])
        let copies = try record.add(.blockOperations, BlockOperation.self, count: 1)
        copies[0] = BlockOperation(kind: .copy, group: 0, source: 4, destination: 12)
        record.setBlockOperationCount(1)
        let found = try await executor.run(record)
        let expected = model.logits(Array(first.prefix(21)))
        #expect(difference(found.logits, [try #require(expected.last)]) < 1e-4)
    }

    @Test func swappedBlocksContinueARequest() async throws {
        let model = TinyModel(seed: 6)
        let executor = try model.sketch().executor(hostPages: 4)
        #expect(executor.hostPageCount == 4)
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        func operate(_ operations: [BlockOperation]) throws {
            let target = try record.add(
                .blockOperations, BlockOperation.self, count: operations.count)
            for (index, operation) in operations.enumerated() { target[index] = operation }
            record.setBlockOperationCount(operations.count)
        }
        try executor.fill(
            record, [WorkItem(tokens: Array(first.prefix(20)), start: 0, pages: [3, 4])])
        _ = try await executor.run(record)
        // Out, and another request's tokens in the same pages in the same step.
        try executor.fill(
            record, [WorkItem(tokens: Array(second.prefix(20)), start: 0, pages: [3, 4])])
        try operate([
            BlockOperation(kind: .swapOut, group: 0, source: 3, destination: 2),
            BlockOperation(kind: .swapOut, group: 0, source: 4, destination: 0),
        ])
        _ = try await executor.run(record)
        // Back, elsewhere.
        try executor.fill(record, [WorkItem(tokens: [first[20]], start: 20, pages: [9, 12])])
        try operate([
            BlockOperation(kind: .swapIn, group: 0, source: 2, destination: 9),
            BlockOperation(kind: .swapIn, group: 0, source: 0, destination: 12),
        ])
        let found = try await executor.run(record)
        let expected = model.logits(Array(first.prefix(21)))
        #expect(difference(found.logits, [try #require(expected.last)]) < 1e-4)
        for (kind, source, destination) in [
            (BlockOperation.Kind.swapOut, 3, 4), (.swapIn, 4, 3), (.swapOut, 64, 0),
            (.swapIn, 0, 64),
        ] as [(BlockOperation.Kind, Int32, Int32)] {
            try executor.fill(record, [WorkItem(tokens: [first[20]], start: 20, pages: [9, 12])])
            try operate([
                BlockOperation(kind: kind, group: 0, source: source, destination: destination)
            ])
            await #expect(throws: MartletError.self) { try await executor.run(record) }
        }
        let without = try model.sketch().executor()
        try without.fill(record, [WorkItem(tokens: [first[20]], start: 0, pages: [9])])
        try operate([BlockOperation(kind: .swapOut, group: 0, source: 3, destination: 0)])
        let error = await #expect(throws: MartletError.self) { try await without.run(record) }
        #expect(error?.message.contains("does not swap") == true)
    }

    @Test func tapsAndProfile() async throws {
        let model = TinyModel(seed: 7)
        let executor = try model.sketch(tap: true).executor()
        executor.isProfiling = true
        let record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        try executor.fill(record, [WorkItem(tokens: first, start: 0, pages: firstPages)])
        let outputs = try await executor.run(record)
        #expect(outputs.named["qkv"]?.count == first.count)
        #expect(outputs.named["qkv"]?.joined().allSatisfy(\.isFinite) == true)
        #expect(outputs.named["logits"] == nil)
        let profile = executor.profile(entryPoint: 0)
        #expect(profile.count == 14)
        #expect(profile.allSatisfy { $0.runCount == 1 && ($0.bytes ?? 0) > 0 })
        executor.resetProfile()
        #expect(executor.profile(entryPoint: 0).allSatisfy { $0.runCount == 0 })
    }
}
