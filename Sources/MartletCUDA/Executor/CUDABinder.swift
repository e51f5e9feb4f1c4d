// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

/// Checks one plan step against hostile content and resolves its operands to device addresses.
///
/// Plans come from files: every index, size and name is checked here, so that kernels need not.
final class CUDABinder {
    let plan: Plan
    let planStep: PlanStep
    /// Where the step is in the plan; nil for no step of it.
    private let index: Int?
    let memory: DeviceMap
    /// Where the plan's KV groups are among those of the engine.
    private let groups: [KVGroupUse]
    private let slots: [UInt64]
    /// Ids that may be looked up, as far as this step restricts them, and the columns of their rows.
    private(set) var embedding: (idLimit: Int, columns: Int)?
    /// V, if this step samples.
    private(set) var vocabularySize: Int?

    init(
        plan: Plan, step: PlanStep, at index: Int? = nil, memory: DeviceMap, groups: [KVGroupUse],
        slots: [UInt64]
    ) {
        self.plan = plan
        self.index = index
        planStep = step
        self.memory = memory
        self.groups = groups
        self.slots = slots
    }

    /// A step so many behind this one; nil past the plan's ends.
    func neighbour(_ distance: Int) -> CUDABinder? {
        guard let index, plan.steps.indices.contains(index + distance) else { return nil }
        return CUDABinder(
            plan: plan, step: plan.steps[index + distance], at: index + distance, memory: memory,
            groups: groups, slots: slots)
    }

    func require(_ holds: Bool, _ message: @autoclosure () -> String) throws {
        if !holds { throw Refusal(message()) }
    }

    /// Arguments that begin with the step's counts, as those of all kernels do.
    func arguments() -> ArgumentBytes {
        var arguments = ArgumentBytes()
        arguments.add(memory.inputs.counts)
        return arguments
    }

    /// Address of a section of the step.
    func step(_ field: StepField) -> UInt64 { memory.inputs.address(field) }

    // MARK: Attributes

    func int(_ name: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws -> Int
    {
        guard let value = planStep.attributes[name]?.int ?? fallback, range.contains(value) else {
            throw Refusal("attribute '\(name)' must be an integer in \(range)")
        }
        return value
    }

    func float(_ name: String, default fallback: Double? = nil) throws -> Double {
        guard let value = planStep.attributes[name]?.float ?? fallback else {
            throw Refusal("attribute '\(name)' must be a number")
        }
        return value
    }

    func word(_ name: String, of allowed: [String], default fallback: String? = nil) throws
        -> String
    {
        guard let value = planStep.attributes[name]?.string ?? fallback, allowed.contains(value)
        else {
            throw Refusal("attribute '\(name)' must be one of \(allowed.joined(separator: ", "))")
        }
        return value
    }

    func flag(_ name: String, default fallback: Bool) -> Bool {
        planStep.attributes[name]?.bool ?? fallback
    }

    // MARK: Rows

    func has(_ index: Int) -> Bool {
        planStep.operands.indices.contains(index) && planStep.operands[index] != .none
    }

    func isParameter(_ index: Int) -> Bool {
        guard planStep.operands.indices.contains(index),
            case .parameter = planStep.operands[index]
        else { return false }
        return true
    }

    /// The rows of a buffer operand, as they lie in memory.
    func view(_ operand: PlanOperand, _ what: String) throws -> DeviceRows {
        guard case .buffer(let index, let offset, let columns) = operand,
            plan.buffers.indices.contains(index)
        else { throw Refusal("\(what) is no buffer of the plan") }
        let buffer = plan.buffers[index]
        guard let type = ElementFormat(buffer.format)?.dtype, type.isActivation || type == .i32
        else { throw Refusal("\(what) has unknown format '\(buffer.format)'") }
        guard columns > 0, offset >= 0, columns <= buffer.columns,
            offset <= buffer.columns - columns, slots.indices.contains(buffer.slot)
        else { throw Refusal("\(what) lies outside its buffer of \(buffer.columns) columns") }
        return DeviceRows(
            address: slots[buffer.slot] + UInt64(offset * type.byteCount),
            stride: buffer.rowBytes / type.byteCount, columns: columns, rows: buffer.rows,
            type: type)
    }

    /// Rows of numbers to compute on.
    func rows(_ index: Int) throws -> DeviceRows {
        try require(planStep.operands.indices.contains(index), "operand \(index) is missing")
        return try computed(view(planStep.operands[index], "operand \(index)"))
    }

    /// Result rows; nil where the result is dropped.
    func optionalResult(_ index: Int) throws -> DeviceRows? {
        guard planStep.results.indices.contains(index), planStep.results[index] != .none else {
            return nil
        }
        return try computed(view(planStep.results[index], "result \(index)"))
    }

    /// Result rows.
    func result(_ index: Int) throws -> DeviceRows {
        guard let view = try optionalResult(index) else {
            throw Refusal("result \(index) is missing")
        }
        return view
    }

    private func computed(_ view: DeviceRows) throws -> DeviceRows {
        try require(view.type.isActivation, "\(view.type.rawValue) rows are not computed on")
        return view
    }

    /// Where the plan wants the sampled tokens; 0 for nowhere.
    func sampledTokens(_ index: Int) throws -> UInt64 {
        guard planStep.results.indices.contains(index), planStep.results[index] != .none else {
            return 0
        }
        let view = try view(planStep.results[index], "result \(index)")
        try require(
            view.type == .i32 && view.rows == .O && view.stride == 1,
            "tokens are i32 rows of O, not \(view.type.rawValue)")
        return view.address
    }

    /// Fails unless two views have the same rows, columns and type.
    func requireSame(_ a: DeviceRows, _ b: DeviceRows) throws {
        try require(
            a.columns == b.columns && a.rows == b.rows && a.type == b.type,
            "operands of \(a.columns) and \(b.columns) columns, or of different rows or types, do not match"
        )
    }

    // MARK: Other operands

    /// A parameter operand with its address.
    func parameter(_ index: Int) throws -> (parameter: PlanParameter, address: UInt64) {
        guard isParameter(index), case .parameter(let number) = planStep.operands[index],
            plan.parameters.indices.contains(number)
        else { throw Refusal("operand \(index) is no parameter of the plan") }
        let parameter = plan.parameters[number]
        guard let address = memory.parameters[parameter] else {
            throw Refusal("parameter '\(parameter.name)' is not in the engine")
        }
        return (parameter, address)
    }

    private func requireBytes(_ parameter: PlanParameter, _ needed: Int) throws {
        let found = memory.byteCount(of: parameter) ?? 0
        try require(
            found == needed,
            "parameter '\(parameter.name)' of shape \(parameter.shape) in layout '\(parameter.layout)' takes \(needed) bytes, not \(found)"
        )
    }

    /// A vector of so many numbers; nil where absent.
    func vector(_ index: Int, count: Int?) throws -> DeviceVector? {
        guard has(index) else { return nil }
        let (parameter, address) = try parameter(index)
        guard parameter.layout == RowLayout.name, let type = DType(rawValue: parameter.format),
            type.isActivation, let found = TensorData.elementCount(parameter.shape), found > 0,
            found < 1 << 30
        else {
            throw Refusal(
                "parameter '\(parameter.name)' (\(parameter.format), layout '\(parameter.layout)') is no vector"
            )
        }
        try requireBytes(parameter, found * type.byteCount)
        try require(
            count == nil || found == count,
            "parameter '\(parameter.name)' has \(found) numbers, not \(count ?? 0)")
        return DeviceVector(address: address, count: found, type: type)
    }

    /// A weight in any layout.
    func plainWeight(_ index: Int) throws -> PlainWeight {
        let (parameter, address) = try parameter(index)
        guard let format = ElementFormat(parameter.format) else {
            throw Refusal(
                "parameter '\(parameter.name)' has unknown format '\(parameter.format)'")
        }
        let weight = try PlainWeight(
            address: address, layout: parameter.layout, format: format, shape: parameter.shape)
        try requireBytes(parameter, weight.byteCount)
        return weight
    }

    /// The description of a weight in a fragment layout.
    func fragments(_ index: Int) throws -> FragmentLayout {
        let (parameter, _) = try parameter(index)
        guard let format = ElementFormat(parameter.format) else {
            throw Refusal(
                "parameter '\(parameter.name)' has unknown format '\(parameter.format)'")
        }
        return try FragmentLayout(parameter.layout, format, parameter.shape)
    }

    /// The rotary table of a parameter of frequencies.
    func rotaryTable(_ index: Int, magnitude: Double) throws -> RotaryTable {
        guard let frequencies = try vector(index, count: nil) else {
            throw Refusal("operand \(index) is missing")
        }
        return try memory.rotaryTable(frequencies, magnitude: magnitude)
    }

    /// Fails unless an operand is a certain input of the step.
    func requireInput(_ index: Int, _ name: String) throws {
        guard planStep.operands.indices.contains(index), planStep.operands[index] == .input(name)
        else { throw Refusal("operand \(index) must be the step's \(name)") }
    }

    /// A KV group by the plan's number: its number in the engine, and its description.
    func group() throws -> (index: Int, group: KVGroup) {
        let local = try int("group", in: 0...max(plan.kvGroups.count - 1, 0))
        try require(groups.indices.contains(local), "there is no KV group \(local)")
        return (groups[local].group, plan.kvGroups[local])
    }

    /// Records how many ids a table has, and the size of its rows.
    func limitIds(to count: Int, columns: Int) { embedding = (count, columns) }

    /// State and scratch of the sampler for logits of so many columns.
    func sampling(vocabularySize: Int) throws -> SamplingMemory {
        self.vocabularySize = vocabularySize
        return try memory.samplingMemory(vocabularySize: vocabularySize)
    }
}
