// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import Synchronization

/// State of an executor that the submitting side shares with the completion thread.
///
/// `@unchecked Sendable`: `queue` is locked, and the lock also orders all work of the submitting side; a
/// slot belongs to its step from submission to completion.
final class CUDAExecutorCore: @unchecked Sendable {
    static let maxStepsInFlight = 2

    private struct Queue {
        var inFlight = 0
        var submitted = 0
        var previousLogitRows = 0
        var graphs = 0
        var plain = 0
        var ranges: [StepInputs.Range] = []
    }

    let device: CUDADevice
    let options: CUDAOptions
    let groups: [KVGroup]
    let pages: PageMemory
    let plans: [DevicePlan]
    let budget: DeviceBudget
    let vocabularySize: Int
    private let modules: LoadedModules
    private let copier: StepCopier
    private let inputs: StepInputs
    private let slots: [StepSlot]
    private let stream: CUDAStream
    private let arena: DeviceMemory
    let hostPages: HostPages?
    let profiler: PlanProfiler
    private let thread: CompletionThread
    private let queue = Mutex(Queue())

    init(
        _ driver: CUDADriver, plans: [Plan], parameters: ParameterBytes, options: CUDAOptions
    ) throws {
        let limits = options.limits
        for (name, value) in [
            ("tokens", limits.maxTokens), ("requests", limits.maxRequests),
            ("logit rows", limits.maxLogitRows), ("context tokens", limits.maxContext),
            ("state slots", options.stateSlotCount + 1),
        ] where value < 1 || value > 1 << 28 {
            throw MartletError(.invalidArgument, "a limit of \(value) \(name) is out of range")
        }
        let device = try CUDADevice(driver, ordinal: options.ordinal)
        var options = options
        options.target = try Self.target(device, plans, options)
        let used = Set(plans.flatMap(\.parameters))
        let parameters = parameters.filter { used.contains($0.key) }
        let bytes = parameters.mapValues(\.count)
        let groups = try EngineKVGroups(plans).groups
        let one = try KVPageSizes(groups: groups, pageCount: 1)
        // The first pass finds sizes, the second one addresses.
        let measured = try BoundPlan.bind(
            plans, base: 0, pageStart: 0, pages: one, parameterBytes: bytes, options: options)
        let pageStart = measured.memory.used
        let pages = try KVPageSizes.fitting(
            groups, options: options, budget: measured.memory.budget, used: pageStart,
            freeBytes: device.freeMemory)
        arena = try DeviceMemory(device, byteCount: pageStart + pages.byteCount)
        let (bound, setUp, memory) = try BoundPlan.bind(
            plans, base: arena.address, pageStart: pageStart, pages: pages, parameterBytes: bytes,
            options: options)
        var budget = memory.budget
        budget.add(pages.byteCount, for: "KV cache")
        self.budget = budget
        self.pages = memory.pages
        inputs = memory.inputs
        stream = try CUDAStream(device)
        hostPages = try Self.hostPages(device, pages, options)
        let modules = LoadedModules(
            device, images: options.images, architecture: options.target)
        self.modules = modules
        try modules.prepare(BoundPlan.modules(of: BoundPlan.started(bound, setUp)))
        copier = StepCopier(try modules.function(StepCopier.launch))
        let loaded = try bound.map { try DevicePlan($0, modules: modules) }
        self.plans = loaded
        vocabularySize =
            memory.sampling?.vocabularySize ?? loaded.lazy.compactMap(\.bound.vocabularySize).first
            ?? 0
        slots = try (0..<Self.maxStepsInFlight).map { _ in
            try StepSlot(device, inputs: memory.inputs, results: memory.results)
        }
        self.device = device
        self.options = options
        self.groups = groups
        profiler = PlanProfiler(plans, catalog: CUDACatalog())
        thread = CompletionThread()
        guard thread.isRunning else {
            throw MartletError(.device, "the system gives no thread to complete steps on")
        }
        do {
            try load(parameters, memory, setUp)
        } catch {
            thread.stop()
            throw error
        }
    }

    /// The architecture to run: the GPU's own, or without a compiler the best one that all code is there for.
    private static func target(
        _ device: CUDADevice, _ plans: [Plan], _ options: CUDAOptions
    ) throws -> KernelArchitecture {
        try options.architecture?.require(capability: device.capability, of: device.name)
        let candidates =
            (options.architecture.map { [$0] }
            ?? KernelArchitecture.candidates(capability: device.capability)).map {
                $0.limited(to: device.sharedMemoryPerBlock)
            }
        guard let best = candidates.first else {
            throw MartletError(
                .unsupported, "there are no kernels for this GPU",
                mend: "Martlet needs compute capability 8.0 or later")
        }
        if case .success = options.images.compiler { return best }
        return try candidates.first {
            try options.images.hold(CUDACatalog.modules(of: plans, for: $0), for: $0)
        } ?? best
    }

    /// Host memory for swapped pages; nil where none is wanted, or none is to be had and not needed.
    private static func hostPages(
        _ device: CUDADevice, _ pages: KVPageSizes, _ options: CUDAOptions
    ) throws(MartletError) -> HostPages? {
        guard pages.pageCount > 0, pages.pageBytes > 0 else { return nil }
        let limit = min(pages.pageCount, options.hostByteCount / pages.pageBytes)
        let locked = try HostPages.lock(device, pageBytes: pages.pageBytes, upTo: limit)
        guard locked != nil || !options.needsHostPages else {
            throw MartletError(
                .limitExceeded,
                "the host locks no memory for swapped KV pages of \(pages.pageBytes) bytes, "
                    + "out of \(options.hostByteCount)",
                mend: "Free memory or raise ulimit -l, or use --preemption recompute")
        }
        return locked
    }

    /// Fills weights, tables and state, and records the graphs.
    private func load(
        _ parameters: ParameterBytes, _ memory: DeviceMap, _ setUp: [KernelLaunch]
    ) throws {
        // State, counters and the inputs of a first step begin as zeros.
        try stream.fill(arena.address, with: 0, count: memory.used)
        if options.poisonsBuffers {
            let count = arena.byteCount - memory.used
            try stream.fill(arena.address + UInt64(memory.used), with: 0xff, count: count)
        }
        let total = parameters.values.reduce(0) { $0 + $1.count }
        let upload = try WeightUpload(device, totalBytes: total)
        for (parameter, bytes) in parameters {
            guard let address = memory.parameters[parameter] else { continue }
            try upload.copy(bytes, to: address, on: stream)
        }
        for launch in setUp {
            let arguments = launch.arguments.padded
            let function = try modules.function(launch)
            try arguments.withUnsafeBytes { bytes throws in
                guard let base = bytes.baseAddress else { return }
                try DevicePlan.start(
                    launch, function, base, options.limits.dimensions, on: stream,
                    isDependent: false, path: "")
            }
        }
        try stream.synchronize()
        guard options.usesGraphs, !options.poisonsBuffers else { return }
        for plan in plans {
            try plan.recordGraphs(options, slots: slots.count, on: stream) {
                index, kernels throws(MartletError) in
                try enqueue(slots[index], isCaptured: true, kernels)
            }
        }
    }

    var launchCounts: (graphs: Int, plain: Int) { queue.withLock { ($0.graphs, $0.plain) } }

    /// Ends the completion thread once what was submitted has completed.
    func stop() { thread.stop() }

    // MARK: The submitting side

    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        guard plans.indices.contains(step.stream) else {
            throw MartletError(
                .invalidArgument, "there is no entry point \(step.stream), only \(plans.count)")
        }
        guard step.groupCount == groups.count else {
            throw MartletError(
                .invalidArgument,
                "a step record of \(step.groupCount) KV groups meets an engine of \(groups.count)")
        }
        let plan = plans[step.stream]
        try queue.withLock { queue in
            guard queue.inFlight < Self.maxStepsInFlight else {
                throw MartletError(
                    .limitExceeded, "\(queue.inFlight) steps are under way, the limit")
            }
            try StepValidator(
                limits: options.limits, idLimit: plan.bound.idLimit,
                embeddingSize: plan.bound.embeddingSize,
                vocabularySize: plan.bound.vocabularySize ?? 0, groups: groups,
                activeGroups: plan.bound.groups, pageCount: pages.pageCount,
                hostPageCount: hostPages?.pageCount ?? 0, stateSlotCount: options.stateSlotCount,
                previousLogitRows: queue.previousLogitRows
            ).check(step)
            let place = queue.submitted % slots.count
            let slot = slots[place]
            let singles = options.singles(step.leadingSingles)
            try inputs.write(
                step, to: slot.inputs, for: plan.bound, singles: singles, ranges: &queue.ranges)
            queue.inFlight += 1
            queue.submitted += 1
            queue.previousLogitRows = plan.bound.samples ? step.logitRowCount : 0
            // From here on something may run: failures belong to the completion.
            var failure: MartletError?
            do {
                try device.makeCurrent()
                try enqueue(step, outputs, singles: singles, plan, place, &queue)
            } catch let error as MartletError {
                failure = error
            } catch {
                failure = MartletError(.internalError, "\(error)")
            }
            thread.add { [self, failure] in
                let result = complete(step, outputs, plan, slot, failure)
                self.queue.withLock { $0.inFlight -= 1 }
                completion(result)
            }
        }
    }

    private func enqueue(
        _ step: StepRecord, _ outputs: StepOutputs, singles: Int, _ plan: DevicePlan,
        _ place: Int, _ queue: inout Queue
    ) throws {
        let slot = slots[place]
        if let operations = step.section(.blockOperations, BlockOperation.self) {
            for index in 0..<step.blockOperationCount() { try perform(operations[index]) }
        }
        if options.poisonsBuffers {
            let (address, count) = plan.bound.activations
            try stream.fill(address, with: 0xff, count: count)
            // A step may go on from the tokens of the one before.
            let sources = step.section(.tokenSource, Int32.self)
            if !(0..<step.tokenCount).contains(where: { (sources?[$0] ?? 0) < 0 }) {
                try slot.poisonResults(on: stream)
            }
        }
        copier.begin()
        for range in queue.ranges {
            copier.bring(
                range.byteCount, from: slot.inputs + range.offset,
                to: inputs.base + UInt64(range.offset))
        }
        let before = try copier.run(on: stream)
        let (tokens, requests, rows) = (
            step.tokenCount, step.requestCount, step.logitRowCount
        )
        slot.marks.begin()
        let isProfiled = profiler.isOn
        if !isProfiled, tokens == requests, rows <= requests,
            singles == options.singles(requests),
            let count = try plan.launchGraph(requests: requests, slot: place, on: stream)
        {
            queue.graphs += 1
            (outputs.launchCount, outputs.kernelCount) = (1, count)
        } else {
            queue.plain += 1
            let count = try enqueue(slot, isCaptured: false) { () throws(MartletError) in
                try plan.launch(
                    Dimension.Values(
                        tokens: tokens, requests: requests, logitRows: rows,
                        context: options.limits.maxContext, singles: singles), on: stream,
                    marks: isProfiled ? slot.marks : nil)
            }
            (outputs.launchCount, outputs.kernelCount) = (count, count)
        }
        try slot.readBackMore(step, plan.bound, by: copier, device: device)
        let hasMore = !copier.isEmpty
        let copies = try before + copier.run(on: stream)
        outputs.launchCount += copies
        outputs.kernelCount += copies
        // An event stands for the last of its records.
        if hasMore { try slot.done.record(on: stream) }
    }

    /// Enqueues what all steps have: inputs to the device, kernels, results to the host, the slot's event.
    ///
    /// - Returns: How many kernels.
    private func enqueue(
        _ slot: StepSlot, isCaptured: Bool, _ kernels: () throws(MartletError) -> Int
    ) throws(MartletError) -> Int {
        copier.bring(inputs.commonBytes, from: slot.inputs, to: inputs.base)
        var count = try copier.run(on: stream, stamp: slot.stamps)
        count += try kernels()
        slot.readBackResults(by: copier)
        count += try copier.run(on: stream, stamp: slot.stamps + 1)
        try slot.done.record(on: stream, isCaptured: isCaptured)
        return count
    }

    /// Enqueues a copy of a page; the stream keeps copies and kernels in their order.
    private func perform(_ operation: BlockOperation) throws(MartletError) {
        let (source, destination) = (operation.source, operation.destination)
        let count = pages.pageBytes
        switch (BlockOperation.Kind(rawValue: operation.kind), hostPages) {
        case (.swapOut, let host?):
            try stream.copy(to: host.page(destination), from: pages.page(source), count: count)
        case (.swapIn, let host?):
            try stream.copy(to: pages.page(destination), from: host.page(source), count: count)
        default:
            try stream.copy(to: pages.page(destination), from: pages.page(source), count: count)
        }
    }

    // MARK: The completion thread

    private func complete(
        _ step: StepRecord, _ outputs: StepOutputs, _ plan: DevicePlan, _ slot: StepSlot,
        _ failure: MartletError?
    ) -> MartletError? {
        do throws(MartletError) {
            try device.makeCurrent()
            if let failure {
                // What was started must not write into a slot that is used again.
                try? stream.synchronize()
                throw failure
            }
            try slot.done.synchronize(spin: options.spinDuration)
            slot.fill(outputs, step, plan.bound)
            outputs.deviceSeconds = slot.deviceSeconds
            if let times = try slot.marks.nanoseconds(stepCount: plan.bound.plan.steps.count) {
                profiler.add(times, of: step)
            }
            return nil
        } catch {
            return error
        }
    }
}
