// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCompiler
import MartletCore
import MartletEngineFile
import MartletModels
import MartletTestSupport
import Synchronization
import Testing

/// The host's work on a driver that records it.
@Suite(.serialized) struct FakeDriverTests {
    /// Kernels that a plan step starts.
    private static func kernels(_ step: PlanStep) -> [String] {
        switch step.op {
        case "addNorm": ["norm_plain"]
        case "gatedActivation": ["gated_plain"]
        case "add", "mul": ["binary_plain"]
        case "gatherRows": ["gather_plain"]
        case "kvWrite": ["kv_write_plain"]
        case "cachedAttention": ["kv_write_plain", "attention_plain"]
        default: ["\(step.op)_plain"]
        }
    }

    /// A step with several tokens of a request starts the plan's kernels, in order, one by one.
    @Test func launchesAreThePlans() async throws {
        FakeDriver.reset()
        let model = try FakeModel()
        let executor = try model.executor()
        var runner = StepRunner(executor)
        let before = FakeDriver.state.withLock { $0.launches.count }
        let outputs = try await runner.run([StepPart(0, [1, 2, 3]), StepPart(1, [4, 5])])
        let launches = FakeDriver.state.withLock { Array($0.launches.dropFirst(before)) }
        let plan = model.compiled.plans[0]
        #expect(launches.map(\.kernel) == plan.steps.flatMap(Self.kernels))
        // The first waits for the inputs, and so all.
        #expect(launches.map(\.isDependent) == launches.indices.map { $0 > 0 })
        #expect(launches.allSatisfy { !$0.isCaptured })
        // All kernels look at the same counts.
        #expect(Set(launches.map(\.firstArgument)).count == 1)
        // Grids follow the counts: 5 tokens, 2 requests, 5 rows with logits.
        for launch in launches {
            switch launch.kernel {
            case "linear_plain": #expect(launch.grid[1] == 1)
            case "sample_plain": #expect(launch.grid == [2 * 8, 1, 1])
            case "gather_plain", "norm_plain", "gated_plain", "embedding_plain":
                #expect(launch.grid[0] == 5)
            case "attention_plain": #expect(launch.grid == [5, 1, 1])
            case "kv_write_plain": #expect(launch.grid == [5, 2, 1])
            default: break
            }
        }
        #expect(executor.launchCounts == (0, 1))
        // And the copies of inputs, results and returned logits.
        #expect(outputs.kernelCount == launches.count + 3)
        #expect(outputs.launchCount == outputs.kernelCount)
    }

    /// Without a compiler the engine's code decides which kernels run: an H100's, or older ones as PTX.
    @Test(
        arguments: [
            ("sm_90a", 64, ["linear_prefill", "attention_prefill"]),
            ("sm_90a", 80, ["linear_prefill", "attention_prefill"]),
            ("sm_90a", 112, ["linear_prefill", "attention_prefill_mma"]),
            ("compute_90", 128, ["linear_prefill_mma", "attention_prefill_mma"]),
            ("compute_80", 64, ["linear_prefill_mma", "attention_prefill_mma"]),
            ("compute_80", 256, ["linear_prefill_mma", "attention_prefill_mma"]),
        ] as [(String, Int, [String])])
    func codeDecidesWhichKernelsRun(
        architecture: String, headDim: Int, expected: [String]
    ) async throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: headDim)
        let images = try FakeModel.images(of: model.compiled.plans, for: architecture)
        let executor = try model.executor {
            $0.images = images
            $0.limits.maxTokens = 140
            $0.limits.maxLogitRows = 140
        }
        var runner = StepRunner(executor)
        let before = FakeDriver.state.withLock { $0.launches.count }
        _ = try await runner.run([StepPart(0, (0..<135).map { Int32($0 % 8) })])
        let kernels = Set(
            FakeDriver.state.withLock { $0.launches.dropFirst(before).map(\.kernel) })
        #expect(
            kernels.filter { $0.contains("_prefill") }
                == Set(expected + ["norm_prefill", "rotate_prefill"]))
        #expect(kernels.isDisjoint(with: ["linear_plain", "attention_plain"]))
    }

    /// A decode step is one launch of a graph, and takes no memory.
    @Test func decodeStepIsOneGraph() async throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor()
        let loaded = FakeDriver.state.withLock { $0 }
        let planLaunches = loaded.launches.filter { $0.isCaptured }.count
        // Buckets 1, 2 and 4, for each of two slots.
        #expect(loaded.calls.count { $0 == "cuGraphInstantiate" } == 6)
        #expect(planLaunches > 0 && planLaunches % 6 == 0)
        var runner = StepRunner(executor)
        // The two slots for steps under way each take what returned logits need, once.
        _ = try await runner.run([StepPart(0, [1, 2]), StepPart(1, [3])])
        _ = try await runner.run([StepPart(0, [1, 2]), StepPart(1, [3])])
        let (before, launches) = FakeDriver.state.withLock { ($0.calls.count, $0.launches.count) }
        for token in 0..<4 {
            let outputs = try await runner.run([StepPart(0, [Int32(token)]), StepPart(1, [7])])
            #expect(outputs.launchCount == 2)
            #expect(outputs.kernelCount == planLaunches / 6 + 3)
            // Between the kernels that bring inputs and results.
            #expect(abs(outputs.deviceSeconds - 0.001) < 1e-9)
        }
        let calls = FakeDriver.state.withLock { Array($0.calls.dropFirst(before)) }
        #expect(calls.count { $0 == "cuGraphLaunch" } == 4)
        // Beside it only the kernel that brings returned logits.
        #expect(FakeDriver.state.withLock { $0.launches.count } == launches)
        #expect(calls.count { $0 == "cuLaunchKernelEx" } == 4)
        #expect(!calls.contains { $0.hasPrefix("cuMemcpy") })
        #expect(!calls.contains { $0.hasPrefix("cuMemAlloc") || $0 == "cuGraphInstantiate" })
        #expect(executor.launchCounts == (4, 2))
    }

    /// While plan steps are timed kernels start one by one, each with an event behind it; afterwards graphs run again.
    @Test func planStepsAreTimed() async throws {
        FakeDriver.reset()
        let model = try FakeModel()
        let executor = try model.executor()
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2])])
        executor.isProfiling = true
        for token: Int32 in [3, 4] { _ = try await runner.run([StepPart(0, [token])]) }
        executor.isProfiling = false
        _ = try await runner.run([StepPart(0, [5])])
        #expect(executor.launchCounts == (1, 3))
        let steps = model.compiled.plans[0].steps
        let profile = executor.profile(entryPoint: 0)
        #expect(profile.map(\.op) == steps.map(\.op))
        // The driver says that a millisecond lies between any two events.
        for (step, known) in zip(profile, steps) {
            let kernels = known.op == "reshape" ? 0 : Self.kernels(known).count
            #expect(step.runCount == 2)
            #expect(step.nanoseconds == 2 * kernels * 1_000_000, "\(known.op)")
            #expect((step.bytes ?? 0) > 0)
        }
        executor.resetProfile()
        #expect(executor.profile(entryPoint: 0).allSatisfy { $0.runCount == 0 })
    }

    /// In 16-bit numbers a layer of a decode step is five kernels.
    @Test(arguments: [DType.bf16, .f16]) func decodeLayerIsFiveKernels(dtype: DType) throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: dtype)
        let executor = try model.executor()
        let layer = [
            "linear_decode", "attention_decode", "linear_decode", "linear_decode", "linear_decode",
        ]
        let expected =
            ["embedding_plain"] + layer + layer.prefix(2)
            // After the last attention only the rows that need logits go on, to the head behind the layer.
            + ["gather_plain", "gather_plain"] + layer.suffix(3) + [
                "linear_decode", "sample_plain",
            ]
        let launches = FakeDriver.state.withLock { $0.launches.filter(\.isCaptured) }
        #expect(launches.prefix(expected.count).map(\.kernel) == expected)
        #expect(
            model.compiled.plans[0].steps.map(\.op).filter { $0.contains("inear") }.count == 9)
        withExtendedLifetime(executor) {}
    }

    /// Inputs reach the device where kernels look for them.
    @Test func countsReachTheDevice() async throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor()
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2, 3]), StepPart(1, [4, 5])])
        let address = try #require(FakeDriver.state.withLock { $0.launches.last?.firstArgument })
        let counts = try #require(UnsafePointer<Int32>(bitPattern: UInt(address)))
        #expect([counts[0], counts[1], counts[2], counts[3]] == [5, 2, 5, 0])
        let tokens = counts + 16
        #expect((0..<5).map { tokens[$0] } == [1, 2, 3, 4, 5])
        withExtendedLifetime(executor) {}
    }

    /// Inputs that are too large for the kernel that copies are brought by the driver, in the step's graph too.
    @Test func largeInputsReachTheDevice() async throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor {
            $0.limits = StepLimits(
                maxTokens: 16, maxRequests: 16, maxLogitRows: 16, maxContext: 1 << 18)
        }
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2, 3])])
        let before = FakeDriver.state.withLock { $0.copies.count }
        _ = try await runner.run([StepPart(0, [7])])
        #expect(executor.launchCounts == (1, 1))
        let state = FakeDriver.state.withLock { $0 }
        let address = try #require(state.launches.last?.firstArgument)
        let inputs = try #require(
            state.copies.dropFirst(before).first { $0.to == UInt(address) })
        #expect(inputs.name == "cuMemcpyHtoDAsync" && inputs.count > 256 << 10)
        let counts = try #require(UnsafePointer<Int32>(bitPattern: UInt(address)))
        #expect([counts[0], counts[1], counts[16]] == [1, 1, 7])
        withExtendedLifetime(executor) {}
    }

    /// Rows given as embeddings, and masks, lie among the inputs that kernels look at.
    @Test func rareInputsReachTheDevice() async throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor()
        #expect(executor.embeddingSize == 64 && executor.vocabularySize == 96)
        var runner = StepRunner(executor)
        let rows = (0..<3 * 64).map { Float($0) + 0.25 }
        let parts = [StepPart(0, [1, 2, 3], embeddings: rows), StepPart(1, [4])]
        _ = try await runner.run(parts) { $0 % 3 == 0 }
        let address = try #require(FakeDriver.state.withLock { $0.launches.last?.firstArgument })
        let counts = try #require(UnsafePointer<UInt32>(bitPattern: UInt(address)))
        #expect((0..<4).map { counts[$0] } == [4, 2, 4, 1])
        // Rows without an id are numbered.
        #expect(
            (0..<4).map { Int32(bitPattern: counts[16 + $0]) } == [.min, .min + 1, .min + 2, 4])
        let inputs = Array(
            UnsafeBufferPointer(start: counts, count: executor.budget.entries[0].byteCount / 4))
        #expect(inputs.contains(rows.map(\.bitPattern)))
        let mask: [UInt32] = (0..<3).map { word in
            (0..<32).reduce(0) { $0 | ((word * 32 + $1) % 3 == 0 ? 1 << UInt32($1) : 0) }
        }
        #expect(inputs.contains(mask + mask + mask + mask))
        withExtendedLifetime(executor) {}
    }

    /// What one entry point writes another reads: at the same place of the same inputs.
    @Test func entryPointsShareGroups() async throws {
        FakeDriver.reset()
        let model = try FakeModel(EncoderDecoder())
        let executor = try model.executor { $0.usesGraphs = false }
        #expect(executor.kvGroups.map(\.name) == ["self", "cross", "encoder"])
        #expect(executor.groupUses.map { $0.map(\.group) } == [[0, 1], [1, 2]])
        var runner = StepRunner(executor)
        let before = FakeDriver.state.withLock { $0.launches.count }
        _ = try await runner.run([StepPart(0, [1, 2, 3])], stream: 1, wantsLogits: false)
        _ = try await runner.run([StepPart(0, [7])])
        let kernels = FakeDriver.state.withLock { $0.launches.dropFirst(before).map(\.kernel) }
        let plans = [1, 0].flatMap { model.compiled.plans[$0].steps.flatMap(Self.kernels) }
        #expect(kernels == plans)
        #expect(kernels.count { $0 == "kv_write_plain" } == 5)
    }

    /// Requests whose logits are not finite are told of f16 where anything is computed in it.
    @Test func mendOfNumbersBeyondF16() throws {
        FakeDriver.reset()
        let codes = QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none)
        let coded = try FakeModel(TinyModels.llama(), dtype: .bf16, scheme: codes)
        #expect(try coded.executor().nonFiniteMend?.contains("--quantize none") == true)
        #expect(try FakeModel(dtype: .f16).executor().nonFiniteMend?.contains("bf16") == true)
        for dtype in [DType.bf16, .f32] {
            #expect(try FakeModel(dtype: dtype).executor().nonFiniteMend == nil)
        }
    }

    /// The arena is one allocation of the size that the budget says.
    @Test func memoryIsTheBudget() throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor()
        #expect(FakeDriver.state.withLock { $0.calls.count { $0 == "cuMemAlloc" } } == 1)
        let purposes = executor.budget.entries.map(\.purpose)
        #expect(Set(purposes).isSuperset(of: ["weights", "activations", "KV cache"]))
        #expect(executor.budget.entries.last?.byteCount == 8 * executor.pageBytes)
        #expect(executor.budget.total < 64 << 20)
    }

    /// Without sizes, keys and values get a fraction of what is free.
    @Test func cacheTakesTheFraction() throws {
        FakeDriver.reset()
        FakeDriver.state.withLock { $0.freeBytes = 8 << 20 }
        let executor = try FakeModel().executor {
            $0.pageCount = nil
            $0.memoryFraction = 0.5
        }
        #expect(executor.budget.total <= 4 << 20)
        #expect(executor.budget.total > 4 << 20 - executor.pageBytes)
        FakeDriver.state.withLock { $0.freeBytes = 1 << 10 }
        #expect(throws: MartletError.self) {
            try FakeModel().executor { $0.pageCount = nil }
        }
    }

    /// Every call of a short run is failed once: a clear error, nothing left behind, and the next run works.
    @Test(arguments: [false, true]) func everyCallMayFail(isCoded: Bool) async throws {
        let codes = QuantizationScheme(bits: 8, group: .channel, scaleType: .f32, zero: .none)
        let model =
            isCoded
            ? try FakeModel(TinyModels.llama(), dtype: .bf16, scheme: codes) : try FakeModel()
        func run() async throws {
            // Looking for a step's end is another call that may fail.
            let executor = try model.executor {
                $0.spinDuration = isCoded ? .milliseconds(5) : .zero
            }
            var runner = StepRunner(executor)
            _ = try await runner.run([StepPart(0, [1, 2, 3])])
            for token in 4..<7 { _ = try await runner.run([StepPart(0, [Int32(token)])]) }
        }
        FakeDriver.reset()
        try await run()
        let count = FakeDriver.state.withLock { $0.count }
        #expect(FakeDriver.state.withLock { $0.live }.isEmpty)
        #expect(count > 100)
        for call in 1...count {
            FakeDriver.reset(failing: call)
            do {
                try await run()
                // Releases make the context current as well, and have nobody to report to.
                let name = FakeDriver.state.withLock { $0.failedCall }
                #expect(name == "cuCtxSetCurrent", "the failure of call \(call) was not reported")
            } catch let error as MartletError {
                let name = FakeDriver.state.withLock { $0.failedCall } ?? ""
                #expect(error.message.contains(name), "\(error)")
                #expect(error.context["call"] != nil && error.mend != nil, "\(error)")
                #expect(error.code == .device || error.code == .limitExceeded)
            }
            let live = FakeDriver.state.withLock { $0.live }
            #expect(live.isEmpty, "call \(call) leaves \(live.values.sorted())")
            #expect(FakeDriver.state.withLock { $0.orphans + $0.contextCount } == 0)
        }
        FakeDriver.reset()
        try await run()
    }

    /// After a failed step the same executor goes on.
    @Test func executorOutlivesAFailedStep() async throws {
        FakeDriver.reset()
        let executor = try FakeModel().executor()
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2])])
        FakeDriver.state.withLock { $0.failingCall = $0.count + 6 }
        await #expect(throws: MartletError.self) { try await runner.run([StepPart(1, [1, 2])]) }
        _ = try await runner.run([StepPart(2, [1, 2])])
    }

    /// Damaged plans are refused by name, and nothing stays behind.
    @Test(arguments: ["family", "buffer", "parameter", "attribute", "group"])
    func damagedPlansAreRefused(part: String) throws {
        FakeDriver.reset()
        let model = try FakeModel()
        var plan = model.compiled.plans[0]
        var parameters = model.compiled.parameters
        let linear = try #require(plan.steps.firstIndex { $0.op == "linear" })
        let attention = try #require(plan.steps.firstIndex { $0.op == "cachedAttention" })
        switch part {
        case "family": plan.steps[linear].family = "linear_unknown"
        case "buffer": plan.steps[linear].results = [.buffer(9999, offset: 0, columns: 1)]
        case "parameter":
            for key in parameters.keys where key.name.contains("weight") {
                parameters[key] = ByteView([UInt8(0)])
            }
        case "attribute": plan.steps[attention].attributes["headDim"] = 17
        default: plan.steps[attention].attributes["group"] = 3
        }
        var options = CUDAOptions(limits: FakeModel.limits, pageCount: 8)
        options.images = model.images
        #expect(throws: MartletError.self) {
            try CUDAExecutor(
                FakeDriver.driver, plans: [plan], parameters: parameters, options: options)
        }
        #expect(FakeDriver.state.withLock { $0.live }.isEmpty)
    }
}
