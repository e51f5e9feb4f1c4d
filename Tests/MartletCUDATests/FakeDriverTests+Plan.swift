// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

/// Memory that is reckoned without a GPU.
extension FakeDriverTests {
    /// The plan says what the executor then takes, however the cache's size is given.
    @Test(
        arguments: [
            (pages: 8, bytes: nil, limit: nil), (nil, 3 << 20, nil), (nil, nil, 1 << 20),
            (nil, nil, nil),
        ] as [(pages: Int?, bytes: Int?, limit: Int?)])
    func planIsTheExecutorsBudget(pages: Int?, bytes: Int?, limit: Int?) throws {
        FakeDriver.reset()
        FakeDriver.state.withLock { $0.freeBytes = 24 << 20 }
        let model = try FakeModel(dtype: .bf16)
        func change(_ options: inout CUDAOptions) {
            options.pageCount = pages
            options.kvByteCount = bytes
            options.kvByteLimit = limit
            options.memoryFraction = 0.75
        }
        let executor = try model.executor(change)
        var options = CUDAOptions(limits: FakeModel.limits)
        change(&options)
        let plan = try MemoryPlan(
            model.compiled.plans, options: options, architecture: KernelArchitecture("sm_90a"),
            freeBytes: 24 << 20)
        #expect(plan.budget.entries.map(\.purpose) == executor.budget.entries.map(\.purpose))
        #expect(plan.budget.entries.map(\.byteCount) == executor.budget.entries.map(\.byteCount))
        #expect(plan.pageCount == executor.pageCount && plan.pageBytes == executor.pageBytes)
        let others = plan.budget.total - plan.pageCount * plan.pageBytes
        #expect(plan.pageRoom == ((18 << 20) - others) / plan.pageBytes)
        // Buckets of 1, 2 and 4 requests, each for two steps under way, with the kernels that were recorded and two that copy.
        let recorded = FakeDriver.state.withLock { $0.launches.count { $0.isCaptured } }
        #expect(plan.graphs == (6, recorded + 6 * 2))
    }

    /// The mend is what helps: other weights, other limits, or the flag that bounds the cache.
    @Test(
        arguments: [
            (freeBytes: 1000, fraction: 0.9, cache: nil, mend: "--quantize"),
            (1 << 30, 1e-300, nil, "--memory-fraction"), (1000, 1e-300, nil, "--quantize"),
            (1 << 30, 0.9, 2 << 30, "Lower --kv-cache-memory"),
            (1 << 30, 0.9, 1, "Raise --kv-cache-memory"), (1000, 0.9, 2 << 30, "--quantize"),
        ] as [(freeBytes: Int, fraction: Double, cache: Int?, mend: String)])
    func planRefusesWhatDoesNotFit(
        freeBytes: Int, fraction: Double, cache: Int?, mend: String
    ) throws {
        let model = try FakeModel()
        var options = CUDAOptions(limits: FakeModel.limits)
        options.memoryFraction = fraction
        options.kvByteCount = cache
        let error = #expect(throws: MartletError.self) {
            try MemoryPlan(
                model.compiled.plans, options: options,
                architecture: KernelArchitecture("sm_80"), freeBytes: freeBytes)
        }
        #expect(error?.code == .limitExceeded)
        #expect(error?.mend?.contains(mend) == true, "\(String(describing: error))")
    }

    /// Where weights fit, but not the buffers of the step, limits help.
    @Test func buffersThatDoNotFitAreNamed() throws {
        let model = try FakeModel()
        let options = CUDAOptions(limits: FakeModel.limits)
        let architecture = KernelArchitecture("sm_80")
        let plan = try MemoryPlan(
            model.compiled.plans, options: options, architecture: architecture, freeBytes: 1 << 30)
        let weights = plan.budget.entries.filter { $0.purpose == "weights" }
        let error = #expect(throws: MartletError.self) {
            try MemoryPlan(
                model.compiled.plans, options: options, architecture: architecture,
                freeBytes: weights.reduce(0) { $0 + $1.byteCount } + 1)
        }
        #expect(error?.mend?.contains("--max-num-tokens") == true)
    }

    @Test func chipsAreFoundByTheirNames() throws {
        #expect(try GPUChip.named("H100").architecture.name == "sm_90a")
        for chip in GPUChip.known {
            #expect(KernelArchitecture.supported.contains(chip.architecture))
            #expect(chip.freeByteCount > 20_000_000_000 && chip.freeByteCount < chip.byteCount)
        }
        let error = #expect(throws: MartletError.self) { try GPUChip.named("voodoo2") }
        #expect(error?.mend?.contains("a100-80gb") == true)
        FakeDriver.reset()
        let present = try GPUChip(FakeDriver.driver)
        #expect(present.freeByteCount == 1 << 30 && present.byteCount == 2 << 30)
    }
}
