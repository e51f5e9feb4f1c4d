// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile
import Synchronization

/// State of an executor that its dispatcher thread shares with the thread that submits.
///
/// `@unchecked Sendable`: the queue is locked; `state` and `previousTokens` are the dispatcher's.
final class ExecutorCore: @unchecked Sendable {
    static let maxStepsInFlight = 2

    struct Submission {
        let record: StepRecord
        let outputs: StepOutputs
        let completion: @Sendable (MartletError?) -> Void
    }
    private struct Queue {
        var waiting: [Submission] = []
        var inFlight = 0
        var previousLogitRows = 0
    }

    let options: CPUOptions
    let instructionSet: CPUInstructionSet
    let resources: ExecutorResources
    let plans: [LoadedPlan]
    let team: ThreadTeam
    let vocabularySize: Int
    let profiler: PlanProfiler
    private let queue = Mutex(Queue())
    private let submitted = Atomic<Int>(0)
    private let stops = Atomic<Bool>(false)
    private let parking = Parking()
    private let state: StepState
    private var previousTokens: [Int32] = []

    init(plans: [Plan], parameters: ParameterBytes, options: CPUOptions) throws {
        let limits = options.limits
        for (name, value) in [
            ("tokens", limits.maxTokens), ("requests", limits.maxRequests),
            ("logit rows", limits.maxLogitRows), ("context tokens", limits.maxContext),
            ("state slots", options.stateSlotCount + 1),
        ] where value < 1 || value > 1 << 28 {
            throw MartletError(.invalidArgument, "a limit of \(value) \(name) is out of range")
        }
        self.options = options
        instructionSet = options.instructionSet ?? .best
        let kvGroups = try EngineKVGroups(plans)
        let groups = kvGroups.groups
        resources = ExecutorResources(
            kernels: try instructionSet.kernels(), limits: limits,
            pages: try KVPages(
                groups: groups, pageCount: options.pageCount, byteCount: options.kvByteCount,
                hostPageCount: options.hostPageCount),
            groups: groups, parameters: parameters)
        do {
            for plan in plans {
                resources.scratchBytes = max(
                    resources.scratchBytes, try LoadedPlan.scratchBytes(plan, limits.dimensions))
            }
        } catch let refusal as Refusal {
            throw MartletError(.corrupt, "plan: \(refusal.reason)")
        }
        let sampler = SamplerBox(stateSlotCount: options.stateSlotCount)
        var loaded: [LoadedPlan] = []
        for (plan, uses) in zip(plans, kvGroups.uses) {
            loaded.append(
                try LoadedPlan(plan, groups: uses, resources: resources, sampler: sampler))
        }
        self.plans = loaded
        vocabularySize =
            sampler.vocabularySize ?? loaded.lazy.compactMap(\.vocabularySize).first ?? 0
        state = try StepState(limits: limits, groups: groups)
        team = ThreadTeam(threads: options.threadCount)
        profiler = PlanProfiler(plans, catalog: CPUCatalog())
    }

    // MARK: The submitting side

    func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        guard plans.indices.contains(step.stream) else {
            throw MartletError(
                .invalidArgument, "there is no entry point \(step.stream), only \(plans.count)")
        }
        guard step.groupCount == resources.groups.count else {
            throw MartletError(
                .invalidArgument,
                "a step record of \(step.groupCount) KV groups meets an engine of \(resources.groups.count)"
            )
        }
        let plan = plans[step.stream]
        let submission = Submission(record: step, outputs: outputs, completion: completion)
        try queue.withLock { queue in
            guard queue.inFlight < Self.maxStepsInFlight else {
                throw MartletError(
                    .limitExceeded, "\(queue.inFlight) steps are under way, the limit")
            }
            try StepValidator(
                limits: options.limits, idLimit: plan.idLimit, embeddingSize: plan.embeddingSize,
                vocabularySize: plan.vocabularySize ?? 0, groups: resources.groups,
                activeGroups: plan.groups, pageCount: resources.pages.pageCount,
                hostPageCount: resources.pages.hostPageCount,
                stateSlotCount: options.stateSlotCount,
                previousLogitRows: queue.previousLogitRows
            ).check(step)
            queue.inFlight += 1
            queue.previousLogitRows = plan.samples ? step.logitRowCount : 0
            queue.waiting.append(submission)
        }
        submitted.add(1, ordering: .sequentiallyConsistent)
        parking.wake()
    }

    /// Ends the dispatcher once what was submitted has run.
    func stop() {
        stops.store(true, ordering: .sequentiallyConsistent)
        submitted.add(1, ordering: .sequentiallyConsistent)
        parking.wake()
    }

    // MARK: The dispatcher's side

    func dispatch() {
        var seen = 0
        while true {
            parking.wait(submitted, while: seen)
            seen += 1
            let next = queue.withLock { $0.waiting.isEmpty ? nil : $0.waiting.removeFirst() }
            guard let next else {
                if stops.load(ordering: .sequentiallyConsistent) { return }
                continue
            }
            run(next)
            queue.withLock { $0.inFlight -= 1 }
            next.completion(nil)
        }
    }

    private func run(_ submission: Submission) {
        let clock = ContinuousClock()
        let start = clock.now
        let (record, outputs) = (submission.record, submission.outputs)
        let plan = plans[record.stream]
        if let operations = record.section(.blockOperations, BlockOperation.self) {
            for index in 0..<record.blockOperationCount() {
                resources.pages.perform(operations[index])
            }
        }
        if options.poisonsBuffers { plan.poison() }
        outputs.clear()
        state.begin(record, outputs: outputs, groups: plan.groups, previousTokens: previousTokens)
        for table in resources.rotaryTables.values { table.ensure(state.positionEnd) }
        let timer = profiler.isOn ? StepTimer(steps: plan.plan.steps.count) : nil
        team.run { [state, team] index, count in
            let worker = Worker(index: index, count: count)
            for work in plan.work {
                for phase in 0..<work.kernel.phaseCount {
                    work.kernel.run(state, phase: phase, worker: worker)
                    team.barrier()
                }
                if index == 0 { timer?.mark(work.step) }
            }
        }
        if let timer { profiler.add(timer.nanoseconds, of: record) }
        previousTokens.removeAll(keepingCapacity: true)
        if plan.samples { previousTokens.append(contentsOf: outputs.tokens) }
        readOutputs(plan, outputs)
        state.end()
        let elapsed = (clock.now - start).components
        outputs.deviceSeconds = Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
    }

    private func readOutputs(_ plan: LoadedPlan, _ outputs: StepOutputs) {
        let kernels = KernelTable(resources.kernels)
        for output in plan.outputs where !(plan.samples && output.name == "logits") {
            let view = output.view
            let rows = (0..<view.rows(state)).map { view.floats(row: $0, kernels) }
            if output.name == "logits", let uses = state.record?.section(.rowUse, UInt32.self) {
                outputs.logits = rows.indices.filter {
                    $0 < state.logitRowCount
                        && RowUse(rawValue: uses[$0]).contains(.returnLogits)
                }.map { rows[$0] }
            }
            outputs.named[output.name] = rows
        }
    }
}

extension StepOutputs {
    /// Forgets the results of an earlier step.
    func clear() {
        tokens.removeAll(keepingCapacity: true)
        status.removeAll(keepingCapacity: true)
        logProbabilities.removeAll(keepingCapacity: true)
        topLogProbabilities.removeAll(keepingCapacity: true)
        acceptedCount.removeAll(keepingCapacity: true)
        logits.removeAll(keepingCapacity: true)
        named.removeAll(keepingCapacity: true)
    }
}

extension RowView {
    /// A row as f32, whatever its format.
    func floats(row: Int, _ kernels: KernelTable) -> [Float] {
        let source = raw(row)
        return [Float](unsafeUninitializedCapacity: columns) { buffer, count in
            count = columns
            guard let target = buffer.baseAddress else { return }
            switch format {
            case .plain(.f16):
                kernels.pointer.pointee.f16_to_f32(
                    source.assumingMemoryBound(to: UInt16.self), target, columns)
            case .plain(.bf16):
                kernels.pointer.pointee.bf16_to_f32(
                    source.assumingMemoryBound(to: UInt16.self), target, columns)
            case .plain(.i32):
                let values = source.assumingMemoryBound(to: Int32.self)
                for i in 0..<columns { target[i] = Float(values[i]) }
            case .activation(.int8g64):
                kernels.pointer.pointee.dequantize_int8g64(
                    source.assumingMemoryBound(to: UInt8.self), stride, columns, target, columns, 0,
                    1)
            default:
                target.update(from: source.assumingMemoryBound(to: Float.self), count: columns)
            }
        }
    }
}
