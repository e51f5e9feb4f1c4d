// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletEngineFile
import MartletTestSupport
import Synchronization
import Testing

/// The word that kernels set where a number exceeded f16.
extension FakeDriverTests {
    /// It comes back in the copy that brings the tokens, says how to mend it, and is gone in the next step.
    @Test(
        arguments: [
            (DType.f16, nil, "--dtype bf16"),
            (
                .bf16, QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
                "--dtype f32"
            ),
        ] as [(DType, QuantizationScheme?, String)])
    func overflowIsReadWithTheTokens(
        dtype: DType, scheme: QuantizationScheme?, mend: String
    ) async throws {
        FakeDriver.reset()
        let model = try FakeModel(TinyModels.llama(), dtype: dtype, scheme: scheme)
        let executor = try model.executor()
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1])])
        // Kernels are told where the word is: behind the counts that are their first argument.
        let counts = try #require(FakeDriver.state.withLock { $0.launches.last?.firstArgument })
        let word = counts + 20
        let linears = try CUDACatalog.launches(
            of: model.compiled.plans, for: KernelArchitecture("sm_90a")
        ).filter { $0.kernel == "linear_decode" }
        #expect(!linears.isEmpty)
        for launch in linears {
            let words = launch.arguments.padded.withUnsafeBytes {
                Array($0.bindMemory(to: UInt64.self))
            }
            #expect(words.contains((words.first ?? 0) + 20))
        }
        for step in 0..<6 {
            let sets = step == 2 || step == 3
            FakeDriver.state.withLock { $0.wordSetByGraphs = sets ? UInt(word) : nil }
            let before = FakeDriver.state.withLock { $0.copies.count }
            let outputs = try await runner.run([StepPart(0, [2])])
            #expect((outputs.overflow != nil) == sets, "step \(step)")
            if sets {
                #expect(outputs.overflow?.code == .limitExceeded)
                #expect(outputs.overflow?.mend?.contains(mend) == true)
                #expect(outputs.overflow?.message.contains("65504") == true)
            }
            let copies = FakeDriver.state.withLock { Array($0.copies.dropFirst(before)) }
            let inputs = UInt(counts)..<UInt(counts) + UInt(executor.budget.total)
            let back = copies.filter { !inputs.contains($0.to) }
            // Tokens with the word, and what the plan gives, the logits among it, as the runner asks for them.
            #expect(back.count == 1 + model.compiled.plans[0].outputs.count)
            #expect(
                back.count { $0.from <= UInt(word) && UInt(word) + 4 <= $0.from + UInt($0.count) }
                    == 1)
        }
        withExtendedLifetime(executor) {}
    }
}
