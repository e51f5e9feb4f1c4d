// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

/// With `isDeterministic` the kernels of a step do not depend on what the step holds.
@Suite struct DeterministicTests {
    /// Decode steps of small and large batches, prompts alone, beside each other and beside decode.
    private static let steps: [(tokens: Int, requests: Int)] = [
        (1, 1), (2, 2), (8, 8), (9, 9), (16, 16), (17, 17), (64, 64), (65, 65), (300, 300), (2, 1),
        (7, 1), (40, 3), (64, 1), (65, 2), (128, 1), (129, 4), (200, 199), (512, 1), (512, 33),
    ]

    private static let targets = ["sm_90a", "sm_80", "compute_90"]

    private struct Variant: Hashable {
        let module: KernelModule
        let kernel: String
        let block: Int
        let sharedBytes: Int
    }

    private func variants(
        _ launches: [KernelLaunch], _ step: (tokens: Int, requests: Int)
    ) -> [Variant: Int] {
        let values = Dimension.Values(
            tokens: step.tokens, requests: step.requests, logitRows: step.requests, context: 64,
            singles: 0)
        var counts: [Variant: Int] = [:]
        for launch in launches {
            let grid = launch.grid(values)
            guard grid.x > 0, grid.y > 0, grid.z > 0 else { continue }
            let variant = Variant(
                module: launch.module, kernel: launch.kernel, block: launch.block,
                sharedBytes: launch.sharedBytes)
            counts[variant, default: 0] += 1
        }
        return counts
    }

    @Test(
        arguments: [DType.f32, .f16, .bf16],
        [
            nil, QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
            QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16, zero: .integer),
        ])
    func kernelsDoNotDependOnTheStep(dtype: DType, scheme: QuantizationScheme?) throws {
        let model = try FakeModel(TinyModels.llama(headDim: 64), dtype: dtype, scheme: scheme)
        for target in Self.targets { try check(model, dtype, KernelArchitecture(target)) }
    }

    private func check(
        _ model: FakeModel, _ dtype: DType, _ architecture: KernelArchitecture
    ) throws {
        let launches = try CUDACatalog.launches(
            of: model.compiled.plans, for: architecture, isDeterministic: true)
        let first = variants(launches, Self.steps[0])
        for step in Self.steps {
            let found = variants(launches, step)
            #expect(Set(found.keys) == Set(first.keys), "\(step)")
            for (variant, count) in found where variant.kernel != "linear_batch" {
                // A linear takes its weights once for each 64 rows; all else once.
                #expect(count == first[variant], "\(variant.kernel) at \(step)")
            }
            if let linear = found.keys.first(where: { $0.kernel == "linear_batch" }) {
                let all = (step.tokens + 63) / 64
                let ends = (step.requests + 63) / 64
                let count = found[linear] ?? 0
                #expect(count % all == 0 || count % ends == 0, "\(count) launches at \(step)")
            }
        }
        // Nothing that depends on the batch is left, where there is something that does.
        let kernels = Set(first.keys.map(\.kernel))
        #expect(kernels.isDisjoint(with: ["linear_decode", "attention_decode"]))
        guard dtype != .f32 else { return }
        #expect(kernels.contains("linear_batch") || kernels.contains { $0.hasPrefix("linear_p") })
        let usual = try CUDACatalog.launches(of: model.compiled.plans, for: architecture)
        #expect(
            Set(variants(usual, (1, 1)).keys) != Set(variants(usual, (200, 199)).keys))
    }

    /// The code that engines hold has what is needed.
    @Test(arguments: ["sm_90a", "sm_80", "compute_90"])
    func enginesHoldTheCode(target: String) throws {
        for scheme in [
            nil, QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none),
        ] {
            let model = try FakeModel(TinyModels.llama(headDim: 64), dtype: .bf16, scheme: scheme)
            let architecture = KernelArchitecture(target)
            let needed = try CUDACatalog.launches(
                of: model.compiled.plans, for: architecture, isDeterministic: true)
            let held = try CUDACatalog.modules(of: model.compiled.plans, for: architecture)
            #expect(Set(needed.map(\.module)).isSubset(of: Set(held)))
        }
    }

    /// Whatever the largest batch and step are set to, a machine without a compiler has the code.
    @Test(arguments: [1, 3], ["sm_80", "sm_90a"])
    func enginesHoldTheCodeOfEveryBatchSize(kvHeads: Int, target: String) throws {
        let model = try FakeModel(
            TinyModels.llama(headCount: 3, kvHeadCount: kvHeads, headDim: 64), dtype: .bf16)
        let architecture = KernelArchitecture(target)
        let held = Set(try CUDACatalog.modules(of: model.compiled.plans, for: architecture))
        for size in Array(1...70) + [97, 130, 200, 300, 511, 513, 1024] {
            let limits = StepLimits(
                maxTokens: max(size, 7), maxRequests: size, maxLogitRows: size, maxContext: 64)
            let needed = try CUDACatalog.launches(
                of: model.compiled.plans, for: architecture, limits: limits)
            let lacking = Set(needed.map(\.module)).subtracting(held)
            #expect(
                lacking.isEmpty, "batches of \(size) lack \(lacking.first.map { "\($0)" } ?? "")")
        }
    }
}

extension FakeDriverTests {
    /// A step of prompts and one of single tokens start the same kernels; the latter still as a graph.
    @Test func deterministicStepsStartTheSameKernels() async throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: 64)
        let executor = try model.executor { $0.isDeterministic = true }
        let captured = FakeDriver.state.withLock { $0.launches.filter(\.isCaptured).map(\.kernel) }
        var runner = StepRunner(executor)
        let before = FakeDriver.state.withLock { $0.launches.count }
        _ = try await runner.run([StepPart(0, [1, 2, 3]), StepPart(1, [4, 5])])
        let plain = FakeDriver.state.withLock { $0.launches.dropFirst(before).map(\.kernel) }
        // Three buckets, each for two steps under way.
        #expect(captured == Array(repeating: plain, count: 6).flatMap { $0 })
        #expect(plain.contains("linear_batch") && plain.contains("attention_prefill"))
        _ = try await runner.run([StepPart(0, [4])])
        #expect(executor.launchCounts == (1, 1))
    }
}
