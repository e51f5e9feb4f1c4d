// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
package import MartletEngineFile

/// A plan that was checked and resolved to launches, with no driver involved.
struct BoundPlan {
    /// A named result.
    struct Output {
        let name: String
        let view: DeviceRows
    }

    let plan: Plan
    /// Launches, with the plan step that each belongs to.
    let launches: [(step: Int, launch: KernelLaunch)]
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
    /// Where activations lie, to be poisoned.
    let activations: (address: UInt64, byteCount: Int)

    /// Checks a plan against hostile content and resolves it.
    ///
    /// - Throws: `MartletError` `.corrupt` or `.unsupported` naming the step.
    init(_ plan: Plan, groups: [KVGroupUse], memory: DeviceMap) throws {
        func failure(_ reason: String, _ code: MartletError.Code = .corrupt) -> MartletError {
            MartletError(code, "plan '\(plan.entryPoint)': \(reason)")
        }
        guard plan.target == CUDACatalog().target else {
            throw failure(
                "it was built for '\(plan.target)', not for an NVIDIA GPU", .unsupported)
        }
        guard plan.positionPlanes == 1 else {
            throw failure("\(plan.positionPlanes) position planes, GPUs read 1", .unsupported)
        }
        self.plan = plan
        self.groups = groups
        do {
            let sizes = try Self.slotSizes(plan, memory.limits.dimensions)
            var slots: [UInt64] = []
            for size in sizes { slots.append(try memory.reserve(size, for: "activations")) }
            activations = (
                slots.first ?? memory.base,
                slots.last.map { Int($0 - (slots.first ?? 0)) + (sizes.last ?? 0) } ?? 0
            )
            var launches: [(step: Int, launch: KernelLaunch)] = []
            var embedding: (idLimit: Int, columns: Int)?
            var vocabularySize: Int?
            for (index, step) in plan.steps.enumerated() {
                let binder = CUDABinder(
                    plan: plan, step: step, at: index, memory: memory, groups: groups,
                    slots: slots)
                guard let family = CUDAFamily.byName[step.family],
                    family.descriptor.op == step.op
                else {
                    throw failure(
                        "step \(index) (\(step.op), \(step.path)): there is no kernel family '\(step.family)'",
                        .unsupported)
                }
                do {
                    launches += try family.bind(binder).map { (index, $0) }
                } catch let refusal as Refusal {
                    throw Refusal("step \(index) (\(step.op), \(step.path)): \(refusal.reason)")
                }
                if let found = binder.embedding {
                    guard embedding == nil || embedding?.columns == found.columns else {
                        throw Refusal(
                            "embeddings of \(embedding?.columns ?? 0) and \(found.columns) columns")
                    }
                    embedding = (min(embedding?.idLimit ?? .max, found.idLimit), found.columns)
                }
                vocabularySize = vocabularySize ?? binder.vocabularySize
            }
            let reader = CUDABinder(
                plan: plan,
                step: PlanStep(
                    op: "", family: "", variants: [], operands: [], results: [], attributes: [:],
                    path: ""), memory: memory, groups: groups, slots: slots)
            outputs = try plan.rowOutputs.map {
                Output(name: $0.name, view: try reader.view($0.operand, "output '\($0.name)'"))
            }
            self.launches = launches
            idLimit = embedding?.idLimit ?? Int(Int32.max)
            embeddingSize = embedding?.columns ?? 0
            samples = vocabularySize != nil
            self.vocabularySize =
                vocabularySize ?? outputs.first { $0.name == "logits" }?.view.columns
        } catch let refusal as Refusal {
            throw failure(refusal.reason)
        }
    }

    private static func slotSizes(_ plan: Plan, _ limits: Dimension.Values) throws -> [Int] {
        guard (0...plan.buffers.count).contains(plan.slotCount) else {
            throw Refusal("\(plan.slotCount) slots for \(plan.buffers.count) buffers")
        }
        var sizes = [Int](repeating: 0, count: plan.slotCount)
        for (index, buffer) in plan.buffers.enumerated() {
            guard sizes.indices.contains(buffer.slot) else {
                throw Refusal("buffer \(index) lies in slot \(buffer.slot) of \(plan.slotCount)")
            }
            guard let format = ElementFormat(buffer.format), let unit = format.dtype?.byteCount,
                let needed = CUDACatalog.rowBytes(format, columns: buffer.columns)
            else {
                throw Refusal(
                    "buffer \(index) has \(buffer.columns) columns of format '\(buffer.format)'")
            }
            guard buffer.rowBytes >= needed, buffer.rowBytes % unit == 0, buffer.rowBytes <= 1 << 34
            else {
                throw Refusal(
                    "buffer \(index) has rows of \(buffer.rowBytes) bytes, its format takes \(needed)"
                )
            }
            // Kernels of 8 rows may write up to 7 more than there are.
            guard buffer.rows.context == 0,
                let rows = buffer.rows.evaluate(limits).map({ ($0 + 7) & ~7 }), rows >= 0,
                rows < 1 << 31,
                case let (bytes, overflow) = rows.multipliedReportingOverflow(by: buffer.rowBytes),
                !overflow, bytes < 1 << 42
            else { throw Refusal("buffer \(index) is too large") }
            sizes[buffer.slot] = max(sizes[buffer.slot], bytes)
        }
        return sizes
    }

    /// What helps against numbers beyond 65504, the largest of f16; nil where nothing is computed in f16.
    var wideningMend: String? {
        if plan.buffers.contains(where: { $0.format == DType.f16.rawValue }) {
            return "A number may have exceeded 65504, the largest of f16: use --dtype bf16"
        }
        let hasCodes = plan.parameters.contains {
            if case .weight? = ElementFormat($0.format) { true } else { false }
        }
        guard hasCodes, plan.buffers.contains(where: { $0.format == DType.bf16.rawValue }) else {
            return nil
        }
        return "A number may have exceeded 65504, the largest of f16, in which few rows meet "
            + "quantized weights: use --dtype f32, or --quantize none"
    }

    /// All that some plans may start on a GPU of an architecture.
    ///
    /// - Throws: `MartletError` if a plan is damaged.
    static func launches(
        of plans: [Plan], for target: KernelArchitecture, isDeterministic: Bool = false,
        limits: StepLimits = CUDACatalog.codeLimits
    ) throws -> [KernelLaunch] {
        let sizes = try KVPageSizes(groups: EngineKVGroups(plans).groups, pageCount: 1)
        var options = CUDAOptions(limits: limits)
        options.target = target
        options.isDeterministic = isDeterministic
        let bound = try Self.bind(
            plans, base: 0, pageStart: 0, pages: sizes, parameterBytes: parameterBytes(plans),
            options: options)
        return started(bound.plans, bound.setUp)
    }

    /// All that is started for some plans: once, for each step, and beside each step.
    static func started(_ plans: [BoundPlan], _ setUp: [KernelLaunch]) -> [KernelLaunch] {
        plans.flatMap { $0.launches.map(\.launch) } + setUp + [StepCopier.launch]
    }

    /// Bytes of all weights and constants of some plans.
    ///
    /// - Throws: `MartletError` `.corrupt` for a parameter that has no size.
    static func parameterBytes(_ plans: [Plan]) throws -> [PlanParameter: Int] {
        var parameterBytes: [PlanParameter: Int] = [:]
        for parameter in plans.flatMap(\.parameters) {
            guard let format = ElementFormat(parameter.format) else { continue }
            do {
                if parameter.shape.count == 2 {
                    parameterBytes[parameter] = try PlainWeight(
                        address: 0, layout: parameter.layout, format: format,
                        shape: parameter.shape
                    ).byteCount
                } else {
                    parameterBytes[parameter] = parameter.shape.reduce(
                        format.dtype?.byteCount ?? 0, *)
                }
            } catch let refusal as Refusal {
                throw MartletError(
                    .corrupt, "parameter '\(parameter.name)': \(refusal.reason)")
            }
        }
        return parameterBytes
    }

    /// Modules of launches, each once.
    static func modules(of launches: [KernelLaunch]) -> [KernelModule] {
        var seen: Set<KernelModule> = []
        return launches.map(\.module).filter { seen.insert($0).inserted }
    }

    /// Resolves plans at a base address.
    ///
    /// - Returns: The plans, launches to run once after loading, and the memory map.
    static func bind(
        _ plans: [Plan], base: UInt64, pageStart: Int, pages: KVPageSizes,
        parameterBytes: [PlanParameter: Int], options: CUDAOptions
    ) throws -> (plans: [BoundPlan], setUp: [KernelLaunch], memory: DeviceMap) {
        let memory: DeviceMap
        let kvGroups = try EngineKVGroups(plans)
        do {
            memory = try DeviceMap(
                base: base, pageStart: pageStart, pages: pages, plans: plans,
                groups: kvGroups.groups, parameterBytes: parameterBytes, options: options)
        } catch let refusal as Refusal {
            throw MartletError(.limitExceeded, refusal.reason, mend: "Lower the limits")
        }
        var bound: [BoundPlan] = []
        for (plan, uses) in zip(plans, kvGroups.uses) {
            bound.append(try BoundPlan(plan, groups: uses, memory: memory))
        }
        let setUp = memory.rotaryTables.map { table in
            var arguments = ArgumentBytes()
            arguments.add(table.frequencies.address)
            arguments.add(table.cosines)
            arguments.add(table.sines)
            arguments.add(table.magnitude)
            arguments.add(DeviceType(table.frequencies.type).rawValue)
            arguments.add(int: table.pairCount)
            arguments.add(int: table.positions)
            let count = table.pairCount * table.positions
            return KernelLaunch(
                module: KernelModule(
                    CUDAFamily.attentionSource, ["ACTIVATION": "0", "KV": "0"]),
                kernel: "rotary_table_plain", arguments: arguments, block: 256
            ) { _ in ((count + 255) / 256, 1, 1) }
        }
        let conversions = memory.conversions.map { source, target in
            var arguments = ArgumentBytes()
            arguments.add(memory.inputs.counts)
            for vector in [source, target] {
                arguments.add(
                    DeviceRows(
                        address: vector.address, stride: vector.count, columns: vector.count,
                        rows: 1, type: vector.type))
            }
            arguments.add(rows: 1)
            arguments.add(int: source.count)
            arguments.add(int: 0)
            arguments.add(Float(0))
            return KernelLaunch(
                module: CUDAFamily.rowModule(source.type, target.type), kernel: "unary_plain",
                arguments: arguments, block: 256, grid: CUDAFamily.elementGrid(1, source.count))
        }
        return (bound, setUp + conversions, memory)
    }
}

extension CUDACatalog {
    /// Limits for which engines hold code: enough for every kernel of a family to be wanted.
    static let codeLimits = StepLimits(
        maxTokens: 512, maxRequests: 512, maxLogitRows: 512, maxContext: 64)

    /// Modules whose code an engine of some plans needs on an architecture.
    ///
    /// - Throws: `MartletError` if a plan is damaged.
    package static func modules(
        of plans: [Plan], for target: KernelArchitecture
    ) throws -> [KernelModule] {
        BoundPlan.modules(of: try launches(of: plans, for: target))
    }

    /// Modules whose code an engine holds for an architecture: PTX for chips with less shared memory than its own too.
    ///
    /// - Throws: `MartletError` if a plan is damaged.
    package static func heldModules(
        of plans: [Plan], for target: KernelArchitecture
    ) throws -> [KernelModule] {
        try target.variants.reduce(into: []) { held, variant in
            let known = Set(held)
            held += try modules(of: plans, for: variant).filter { !known.contains($0) }
        }
    }

    /// All that some plans may start on an architecture.
    ///
    /// - Throws: `MartletError` if a plan is damaged.
    package static func launches(
        of plans: [Plan], for target: KernelArchitecture, isDeterministic: Bool = false,
        limits: StepLimits? = nil
    ) throws -> [KernelLaunch] {
        try BoundPlan.launches(
            of: plans, for: target, isDeterministic: isDeterministic,
            limits: limits ?? codeLimits)
    }
}
