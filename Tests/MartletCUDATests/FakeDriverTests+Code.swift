// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

/// What kernels say of themselves, and which a GPU takes.
extension FakeDriverTests {
    /// Kernels whose shared memory only their code knows do not run without that number.
    @Test(arguments: [nil, 4], ["sm_90a", "compute_80"])
    func kernelsWithoutTheirSizeAreRefused(byteCount: Int?, architecture: String) throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: 64)
        let images = try FakeModel.images(of: model.compiled.plans, for: architecture)
        _ = try model.executor { $0.images = images }
        FakeDriver.reset()
        FakeDriver.state.withLock { $0.factByteCount = byteCount }
        let error = #expect(throws: MartletError.self) {
            try model.executor { $0.images = images }
        }
        #expect(error?.code == .corrupt)
        #expect(
            error?.message.contains("_launch'") == true && error?.mend != nil,
            "\(String(describing: error))")
        #expect(FakeDriver.state.withLock { $0.live }.isEmpty)
    }

    /// Only "not found" says that a kernel has no such number: any other failure is one.
    @Test func failureToAskIsNoAnswer() throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: 64)
        _ = try model.executor()
        let calls = FakeDriver.state.withLock { $0.calls }
        let places = calls.indices.filter { calls[$0] == "cuModuleGetGlobal" }
        #expect(places.count > 5)
        for place in places {
            FakeDriver.reset(failing: place + 1)
            let error = #expect(throws: MartletError.self) { try model.executor() }
            #expect(error?.message.hasPrefix("cuModuleGetGlobal failed with ") == true)
            #expect(error?.context["kernel"] != nil && error?.mend != nil)
            #expect(FakeDriver.state.withLock { $0.live }.isEmpty)
        }
    }

    /// `--force-sm` names code that is older than the GPU, or as old.
    @Test(
        arguments: [
            (86, "compute_90", "compute_80"), (75, "compute_80", "8.0 or later"),
            (86, "compute_80", nil), (90, "compute_90", nil),
        ] as [(Int, String, String?)])
    func codeIsNotNewerThanTheGPU(capability: Int, code: String, mend: String?) throws {
        FakeDriver.reset()
        FakeDriver.state.withLock { $0.capability = capability }
        let model = try FakeModel()
        let images = try FakeModel.images(of: model.compiled.plans, for: code)
        func load() throws {
            _ = try model.executor {
                $0.architecture = KernelArchitecture(code)
                $0.images = images
            }
        }
        guard let mend else { return try load() }
        let error = #expect(throws: MartletError.self) { try load() }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("\(capability / 10).\(capability % 10)") == true)
        #expect(error?.mend?.contains(mend) == true)
    }

    /// PTX runs on chips that give a block less shared memory than those that it is named after, from an engine's own
    /// code: kernels are chosen for the chip.
    @Test(
        arguments: [
            (86, "compute_80"), (89, "compute_80"), (120, "compute_80"), (120, "compute_90"),
        ],
        [DType.bf16, .f16])
    func codeFitsTheChipsSharedMemory(chip: (Int, String), dtype: DType) async throws {
        for kvHeads in [1, 2, 4] {
            let llama = try TinyModels.llama(kvHeadCount: kvHeads, headDim: 128)
            let model = try FakeModel(llama, dtype: dtype)
            let images = try FakeModel.images(of: model.compiled.plans, for: chip.1)
            for small in [false, true] {
                FakeDriver.reset()
                FakeDriver.state.withLock {
                    $0.capability = small ? chip.0 : 90
                    $0.sharedMemoryPerBlock = small ? 99 << 10 : 227 << 10
                }
                _ = try model.executor {
                    $0.architecture = KernelArchitecture(chip.1)
                    $0.images = images
                }
            }
        }
        let code = KernelArchitecture(chip.1)
        let small = code.limited(to: 99 << 10)
        let plans = try FakeModel(TinyModels.llama(headDim: 128), dtype: dtype).compiled.plans
        func most(_ code: KernelArchitecture) throws -> Int {
            try CUDACatalog.launches(of: plans, for: code).map(\.sharedBytes).max() ?? 0
        }
        #expect(try most(code) > 99 << 10 && most(small) <= 99 << 10)
        #expect(small != code && small.name == code.name)
        #expect(code.limited(to: 1 << 20) == code && small.limited(to: 1 << 20) == small)
        let own = KernelArchitecture("sm_89")
        #expect(own.limited(to: 99 << 10) == own)
    }
}
