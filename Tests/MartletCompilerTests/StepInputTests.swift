// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCompiler
import MartletCore
import MartletModels
import MartletReference
import MartletTestSupport
import Testing

/// Parts of a step that few requests use: rows given as embeddings, and masks.
@Suite struct StepInputTests {
    private let weights = RandomWeights(seed: 31)

    private func executor() throws -> CPUExecutor {
        try CompiledModel(TinyModels.llama(), weights: weights).executor()
    }

    /// Rows of the embedding table of the tokens, as a caller would give them.
    private func embeddings(_ tokens: [Int32]) throws -> [Float] {
        let table = try weights.weight("embedding.weight", shape: [96, 64]).referenceFloats()
        return tokens.flatMap { table[Int($0) * 64..<Int($0 + 1) * 64] }
    }

    @Test func recordsHaveRoomForWhatThePlanTakes() throws {
        let executor = try executor()
        #expect(executor.embeddingSize == 64 && executor.vocabularySize == 96)
        let record = StepRecord(for: executor)
        // The largest step of all: every row given, every row masked.
        let limits = executor.limits
        _ = try record.add(.embeddings, Float.self, count: limits.maxTokens * 64)
        _ = try record.add(.logitMask, UInt32.self, count: limits.maxLogitRows * 3)
    }

    @Test func embeddingsEqualIds() async throws {
        var random = SeededRandom(seed: 32)
        let tokens = random.tokens(64, below: 96)
        var byID = StepRunner(try executor()), byRow = StepRunner(try executor())
        let first = StepPart(0, Array(tokens[..<40])), second = StepPart(1, Array(tokens[40...]))
        var given = first
        given.embeddings = try embeddings(first.tokens)
        // One request by rows beside one by ids, then ids after rows.
        let expected = try await byID.run([first, second])
        let found = try await byRow.run([given, second])
        #expect(found.logits == expected.logits && found.tokens == expected.tokens)
        let (nextByID, nextByRow) = (try await byID.run([first]), try await byRow.run([first]))
        #expect(nextByRow.logits == nextByID.logits)
        given.embeddings[7] += 1
        var other = StepRunner(try executor())
        let changed = try await other.run([given, second])
        #expect(changed.logits != expected.logits)
    }

    @Test func masksForbid() async throws {
        let step = [StepPart(0, [1, 2, 3]), StepPart(1, [4])]
        var free = StepRunner(try executor())
        let best = Set(try await free.run(step).tokens)
        var masked = StepRunner(try executor())
        let second = try await masked.run(step) { !best.contains(Int32($0)) }
        for (row, token) in zip(second.logits, second.tokens) where token >= 0 {
            let allowed = row.indices.filter { !best.contains(Int32($0)) }
            #expect(row[Int(token)] == allowed.map { row[$0] }.max())
        }
        #expect(second.tokens.count { $0 >= 0 } == 2)
        var only = StepRunner(try executor())
        let last = try await only.run(step) { $0 == 95 }
        #expect(last.tokens.filter { $0 >= 0 } == [95, 95])
        var none = StepRunner(try executor())
        let nothing = try await none.run(step) { _ in false }
        #expect(nothing.status.count { $0 == .noCandidate } == 2)
    }
}
