// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile

/// A plan that was checked and resolved to addresses.
///
/// `@unchecked Sendable`: immutable after loading; the memory it points to has one user at a time.
final class LoadedPlan: @unchecked Sendable {
    /// A kernel and the plan step it belongs to.
    struct Work {
        let kernel: any BoundKernel
        let step: Int
    }
    /// A named result.
    struct Output {
        let name: String
        let view: RowView
    }

    let plan: Plan
    let work: ContiguousArray<Work>
    let outputs: [Output]
    /// What the plan does with the engine's KV groups, in its own order.
    let groups: [KVGroupUse]
    /// Ids that may be looked up.
    let idLimit: Int
    /// Floats of a row given as embedding.
    let embeddingSize: Int
    /// V, where the plan samples or has logits.
    let vocabularySize: Int?
    let samples: Bool
    private let memory: MappedArena

    /// Checks a plan against hostile content and resolves it.
    ///
    /// - Throws: `MartletError` `.corrupt` or `.unsupported` naming the step.
    init(
        _ plan: Plan, groups: [KVGroupUse], resources: ExecutorResources, sampler: SamplerBox
    ) throws {
        self.plan = plan
        self.groups = groups
        let limits = resources.limits.dimensions
        func failure(_ reason: String, _ code: MartletError.Code = .corrupt) -> MartletError {
            MartletError(code, "plan '\(plan.entryPoint)': \(reason)")
        }
        guard plan.target == CPUCatalog().target else {
            throw failure("it was built for '\(plan.target)', not for a CPU", .unsupported)
        }
        guard plan.positionPlanes == 1 else {
            throw failure("\(plan.positionPlanes) position planes, the CPU reads 1", .unsupported)
        }
        guard (0...plan.buffers.count).contains(plan.slotCount) else {
            throw failure("\(plan.slotCount) slots for \(plan.buffers.count) buffers")
        }
        do {
            let sizes = try LoadedPlan.slotSizes(plan, limits)
            memory = try MappedArena(
                count: sizes.reduce(128, +), purpose: "activations", mend: "Lower --max-num-tokens")
            var slots: [UnsafeMutableRawPointer] = []
            var offset = 0
            for size in sizes {
                slots.append(memory.base + offset)
                offset += size
            }
            var work: ContiguousArray<Work> = []
            var idLimit = Int(Int32.max)
            var embeddingSize = 0
            var vocabularySize: Int?
            var samples = false
            for (index, step) in plan.steps.enumerated() {
                let binder = Binder(
                    plan: plan, step: step, resources: resources, groups: groups,
                    slots: slots, sampler: sampler)
                do {
                    guard let op = CPUOp.byName[step.op] else {
                        throw MartletError(.unsupported, "the CPU has no op '\(step.op)'")
                    }
                    let kernel = try op.bind(binder)
                    for kernel in binder.before + [kernel] + binder.after {
                        work.append(Work(kernel: kernel, step: index))
                    }
                } catch let refusal as Refusal {
                    throw failure("step \(index) (\(step.op), \(step.path)): \(refusal.reason)")
                } catch let error as MartletError {
                    throw failure(
                        "step \(index) (\(step.op), \(step.path)): \(error.message)", error.code)
                }
                if let limit = binder.idLimit {
                    idLimit = min(idLimit, limit)
                    if case .buffer(_, _, let columns)? = step.results.first {
                        guard embeddingSize == 0 || embeddingSize == columns else {
                            throw failure("embeddings of \(embeddingSize) and \(columns) columns")
                        }
                        embeddingSize = columns
                    }
                }
                if let size = binder.vocabularySize {
                    vocabularySize = size
                    samples = true
                }
            }
            let reader = Binder(
                plan: plan,
                step: PlanStep(
                    op: "", family: "", variants: [], operands: [], results: [], attributes: [:],
                    path: ""),
                resources: resources, groups: groups, slots: slots, sampler: sampler)
            outputs = try plan.rowOutputs.map {
                Output(name: $0.name, view: try reader.view($0.operand, "output '\($0.name)'"))
            }
            self.work = work
            self.idLimit = idLimit
            self.embeddingSize = embeddingSize
            self.samples = samples
            self.vocabularySize =
                vocabularySize ?? outputs.first { $0.name == "logits" }?.view.columns
        } catch let refusal as Refusal {
            throw failure(refusal.reason)
        }
    }

    /// Bytes of the largest f32 form of any buffer: what scratch must hold.
    static func scratchBytes(_ plan: Plan, _ limits: Dimension.Values) throws -> Int {
        var largest = 0
        for buffer in plan.buffers {
            let rows = try RowCount(buffer.rows, limits: limits).maximum
            guard buffer.columns > 0, buffer.columns <= 1 << 31, buffer.rowBytes <= 1 << 34 else {
                throw Refusal("a buffer of \(buffer.columns) columns is out of range")
            }
            let (bytes, overflow) = rows.multipliedReportingOverflow(
                by: max(buffer.rowBytes, buffer.columns * 4 + 128))
            guard !overflow, bytes < 1 << 46 else { throw Refusal("a buffer is too large") }
            largest = max(largest, bytes)
        }
        return largest
    }

    private static func slotSizes(_ plan: Plan, _ limits: Dimension.Values) throws -> [Int] {
        var sizes = [Int](repeating: 0, count: plan.slotCount)
        for (index, buffer) in plan.buffers.enumerated() {
            guard sizes.indices.contains(buffer.slot) else {
                throw Refusal("buffer \(index) lies in slot \(buffer.slot) of \(plan.slotCount)")
            }
            guard let format = ElementFormat(buffer.format),
                let needed = CPUCatalog.rowBytes(format, columns: buffer.columns)
            else {
                throw Refusal(
                    "buffer \(index) has \(buffer.columns) columns of format '\(buffer.format)'")
            }
            let unit = format.dtype?.byteCount ?? 64
            guard buffer.rowBytes >= needed, buffer.rowBytes % unit == 0, buffer.rowBytes <= 1 << 34
            else {
                throw Refusal(
                    "buffer \(index) has rows of \(buffer.rowBytes) bytes, its format takes \(needed)"
                )
            }
            let rows = try RowCount(buffer.rows, limits: limits).maximum
            let (bytes, overflow) = rows.multipliedReportingOverflow(by: buffer.rowBytes)
            guard !overflow, bytes < 1 << 46 else { throw Refusal("buffer \(index) is too large") }
            sizes[buffer.slot] = max(sizes[buffer.slot], (bytes + 63) / 64 * 64)
        }
        guard sizes.reduce(0.0, { $0 + Double($1) }) < 0x1p46 else {
            throw Refusal("buffers of \(sizes.count) slots are too large")
        }
        return sizes
    }

    /// Fills all slots with NaN.
    func poison() { memset(memory.base, 0xff, memory.count) }
}
