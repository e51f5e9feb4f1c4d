// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile

/// Checks one plan step against hostile content and resolves its operands to addresses.
///
/// Plans come from files: every index, size and name is checked here, so that kernels need not.
/// f16 and bf16 rows are staged: widened to f32 before the kernel, rounded after it.
final class Binder {
    let plan: Plan
    let step: PlanStep
    let resources: ExecutorResources
    /// Where the plan's KV groups are among those of the engine.
    let groups: [KVGroupUse]
    private let slots: [UnsafeMutableRawPointer]
    private let sampler: SamplerBox
    /// Conversions to run before and after the kernel.
    private(set) var before: [any BoundKernel] = []
    private(set) var after: [any BoundKernel] = []
    private var scratchIndex = 0
    /// Ids that may be looked up, as far as this step restricts them.
    private(set) var idLimit: Int?
    /// V, if this step samples.
    private(set) var vocabularySize: Int?

    init(
        plan: Plan, step: PlanStep, resources: ExecutorResources, groups: [KVGroupUse],
        slots: [UnsafeMutableRawPointer], sampler: SamplerBox
    ) {
        self.plan = plan
        self.step = step
        self.resources = resources
        self.groups = groups
        self.slots = slots
        self.sampler = sampler
    }

    var kernels: UnsafePointer<martlet_kernels> { resources.kernels }
    private var limits: Dimension.Values { resources.limits.dimensions }

    func require(_ holds: Bool, _ message: @autoclosure () -> String) throws {
        if !holds { throw Refusal(message()) }
    }

    // MARK: Attributes

    func int(_ name: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws -> Int
    {
        guard let value = step.attributes[name]?.int ?? fallback, range.contains(value) else {
            throw Refusal("attribute '\(name)' must be an integer in \(range)")
        }
        return value
    }

    func float(_ name: String, default fallback: Double? = nil) throws -> Double {
        guard let value = step.attributes[name]?.float ?? fallback else {
            throw Refusal("attribute '\(name)' must be a number")
        }
        return value
    }

    func word(_ name: String, of allowed: [String], default fallback: String? = nil) throws
        -> String
    {
        guard let value = step.attributes[name]?.string ?? fallback, allowed.contains(value) else {
            throw Refusal("attribute '\(name)' must be one of \(allowed.joined(separator: ", "))")
        }
        return value
    }

    func flag(_ name: String, default fallback: Bool) -> Bool {
        step.attributes[name]?.bool ?? fallback
    }

    // MARK: Rows

    func has(_ index: Int) -> Bool {
        step.operands.indices.contains(index) && step.operands[index] != .none
    }

    /// The rows of a buffer operand, as they lie in memory.
    func view(_ operand: PlanOperand, _ what: String) throws -> RowView {
        guard case .buffer(let index, let offset, let columns) = operand,
            plan.buffers.indices.contains(index)
        else { throw Refusal("\(what) is no buffer of the plan") }
        let buffer = plan.buffers[index]
        guard let format = ElementFormat(buffer.format) else {
            throw Refusal("\(what) has unknown format '\(buffer.format)'")
        }
        guard columns > 0, offset >= 0, columns <= buffer.columns,
            offset <= buffer.columns - columns,
            slots.indices.contains(buffer.slot)
        else { throw Refusal("\(what) lies outside its buffer of \(buffer.columns) columns") }
        if case .activation = format {
            try require(
                offset == 0 && columns == buffer.columns, "\(what) is a part of coded rows")
        }
        let element = format.dtype?.byteCount ?? 0
        return RowView(
            base: slots[buffer.slot] + offset * element, stride: buffer.rowBytes, columns: columns,
            rows: try RowCount(buffer.rows, limits: limits), format: format)
    }

    /// An operand's rows as they lie in memory.
    func rawInput(_ index: Int) throws -> RowView {
        try require(step.operands.indices.contains(index), "operand \(index) is missing")
        return try view(step.operands[index], "operand \(index)")
    }

    /// A result's rows as they lie in memory; nil where the result is dropped.
    func rawOutput(_ index: Int) throws -> RowView? {
        guard step.results.indices.contains(index), step.results[index] != .none else { return nil }
        return try view(step.results[index], "result \(index)")
    }

    /// An operand's rows as f32.
    func input(_ index: Int) throws -> RowView {
        let raw = try rawInput(index)
        if raw.format == .plain(.f32) { return raw }
        let staged = try staging(raw, "operand \(index)")
        before.append(try ConversionKernel(from: raw, to: staged, kernels: kernels))
        return staged
    }

    /// A result's rows as f32; nil where the result is dropped.
    func optionalOutput(_ index: Int) throws -> RowView? {
        guard let raw = try rawOutput(index) else { return nil }
        if raw.format == .plain(.f32) { return raw }
        let staged = try staging(raw, "result \(index)")
        after.append(try ConversionKernel(from: staged, to: raw, kernels: kernels))
        return staged
    }

    /// A result's rows as f32.
    func output(_ index: Int) throws -> RowView {
        guard let view = try optionalOutput(index) else {
            throw Refusal("result \(index) is missing")
        }
        return view
    }

    /// A result's rows as f32 or int8g64.
    func optionalRowOutput(_ index: Int) throws -> RowView? {
        guard let raw = try rawOutput(index) else { return nil }
        return raw.format == .activation(.int8g64) ? raw : try optionalOutput(index)
    }

    /// A result's rows as f32 or int8g64.
    func rowOutput(_ index: Int) throws -> RowView {
        guard let view = try optionalRowOutput(index) else {
            throw Refusal("result \(index) is missing")
        }
        return view
    }

    private func staging(_ raw: RowView, _ what: String) throws -> RowView {
        guard raw.format == .plain(.f16) || raw.format == .plain(.bf16) else {
            throw Refusal("\(what) has format \(raw.format), which \(step.op) does not compute on")
        }
        return try scratchRows(columns: raw.columns, rows: raw.rows)
    }

    /// Scratch rows of f32.
    func scratchRows(columns: Int, rows: RowCount, floatStride: Int? = nil) throws -> RowView {
        let stride = (floatStride ?? columns) * 4
        return RowView(
            base: try scratch(bytes: rows.maximum * stride), stride: stride, columns: columns,
            rows: rows, format: .plain(.f32))
    }

    /// Scratch memory that keeps its content within this step only.
    func scratch(bytes: Int) throws -> UnsafeMutableRawPointer {
        scratchIndex += 1
        return try resources.scratchArea(scratchIndex - 1, bytes: bytes)
    }

    /// Fails unless two views have the same rows and columns.
    func requireSameShape(_ a: RowView, _ b: RowView) throws {
        try require(
            a.columns == b.columns && a.rows == b.rows,
            "operands of \(a.columns) and \(b.columns) columns, or of different rows, do not match")
    }

    // MARK: Other operands

    /// A parameter operand.
    func parameter(_ index: Int) throws -> PlanParameter {
        guard step.operands.indices.contains(index),
            case .parameter(let number) = step.operands[index],
            plan.parameters.indices.contains(number)
        else { throw Refusal("operand \(index) is no parameter of the plan") }
        return plan.parameters[number]
    }

    /// A vector of so many f32; nil where absent.
    func vector(_ index: Int, count: Int) throws -> UnsafePointer<Float>? {
        guard has(index) else { return nil }
        let parameter = try parameter(index)
        let (values, found) = try resources.vector(parameter)
        try require(
            found == count, "parameter '\(parameter.name)' has \(found) numbers, not \(count)")
        return values
    }

    /// A packed weight.
    func weight(_ index: Int) throws -> martlet_weight { try resources.weight(parameter(index)) }

    /// Fails unless an operand is a certain input of the step.
    func requireInput(_ index: Int, _ name: String) throws {
        guard step.operands.indices.contains(index), step.operands[index] == .input(name) else {
            throw Refusal("operand \(index) must be the step's \(name)")
        }
    }

    /// Row count that a result must have.
    func requireRows(_ view: RowView, _ dimension: Dimension) throws {
        try require(
            view.rows == RowCount(dimension, limits: limits), "rows do not number \(dimension)")
    }

    /// A KV group by the plan's number: its number in the engine, and its description.
    func group() throws -> (index: Int, group: KVGroup) {
        let local = try int("group", in: 0...max(plan.kvGroups.count - 1, 0))
        try require(groups.indices.contains(local), "there is no KV group \(local)")
        return (groups[local].group, plan.kvGroups[local])
    }

    /// Records how many ids a table has.
    func limitIds(to count: Int) { idLimit = min(idLimit ?? .max, count) }

    /// The sampler for logits of so many columns.
    func samplerBox(vocabularySize: Int) throws -> SamplerBox {
        try sampler.use(vocabularySize: vocabularySize)
        self.vocabularySize = vocabularySize
        return sampler
    }
}
