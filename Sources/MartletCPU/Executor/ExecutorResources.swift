// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile

/// Memory and tables that the bound kernels of all plans use; lives as long as they run.
///
/// `@unchecked Sendable`: filled while loading, then only the dispatcher and its team use it.
final class ExecutorResources: @unchecked Sendable {
    let kernels: UnsafePointer<martlet_kernels>
    let limits: StepLimits
    let pages: KVPages
    /// Groups of the engine.
    let groups: [KVGroup]
    private let parameters: ParameterBytes
    private var scratch: [MappedArena] = []
    private var owned: [MappedArena] = []
    private(set) var rotaryTables: [RotaryTable.Key: RotaryTable] = [:]
    /// Bytes of one scratch area: no operand in f32 is larger.
    var scratchBytes = 0

    init(
        kernels: UnsafePointer<martlet_kernels>, limits: StepLimits, pages: KVPages,
        groups: [KVGroup], parameters: ParameterBytes
    ) {
        self.kernels = kernels
        self.limits = limits
        self.pages = pages
        self.groups = groups
        self.parameters = parameters
    }

    /// Scratch area by number, shared by all steps.
    func scratchArea(_ index: Int, bytes: Int) throws -> UnsafeMutableRawPointer {
        guard bytes <= scratchBytes else {
            throw MartletError(
                .internalError, "scratch of \(bytes) bytes exceeds the reserved \(scratchBytes)")
        }
        while scratch.count <= index {
            scratch.append(try MappedArena(count: scratchBytes, purpose: "scratch memory"))
        }
        return scratch[index].base
    }

    /// Bytes of a parameter.
    func bytes(of parameter: PlanParameter) throws -> ByteView {
        guard let view = parameters[parameter] else {
            throw Refusal("parameter '\(parameter.name)' is not in the engine")
        }
        return view
    }

    /// A parameter in a panel layout, used in place.
    func weight(_ parameter: PlanParameter) throws -> martlet_weight {
        guard let format = ElementFormat(parameter.format) else {
            throw Refusal("parameter '\(parameter.name)' has unknown format '\(parameter.format)'")
        }
        var weight = try PanelLayout.describe(parameter.layout, format, parameter.shape)
        let view = try bytes(of: parameter)
        let needed = martlet_weight_byte_count(&weight)
        guard view.count == needed else {
            throw Refusal(
                "parameter '\(parameter.name)' of shape \(parameter.shape) in layout '\(parameter.layout)' takes \(needed) bytes, not \(view.count)"
            )
        }
        weight.data = view.unsafeBaseAddress
        return weight
    }

    /// A parameter of plain numbers as f32: in place if it is f32, else widened once.
    func vector(_ parameter: PlanParameter) throws -> (values: UnsafePointer<Float>, count: Int) {
        guard parameter.layout == VectorLayout.name, let type = DType(rawValue: parameter.format),
            let count = TensorData.elementCount(parameter.shape), count > 0, count < 1 << 40
        else {
            throw Refusal(
                "parameter '\(parameter.name)' (\(parameter.format), layout '\(parameter.layout)') is no vector"
            )
        }
        let view = try bytes(of: parameter)
        guard view.count == count * type.byteCount else {
            throw Refusal(
                "parameter '\(parameter.name)' of shape \(parameter.shape) takes \(count * type.byteCount) bytes, not \(view.count)"
            )
        }
        let source = view.unsafeBaseAddress
        if type == .f32, Int(bitPattern: source) % 4 == 0 {
            return (source.assumingMemoryBound(to: Float.self), count)
        }
        let copy = try MappedArena(count: count * 4, purpose: "parameter '\(parameter.name)'")
        owned.append(copy)
        let values = copy.base.bindMemory(to: Float.self, capacity: count)
        for i in 0..<count {
            switch type {
            case .f32: values[i] = source.loadUnaligned(fromByteOffset: i * 4, as: Float.self)
            case .f16:
                values[i] = Half.float(
                    bits: source.loadUnaligned(fromByteOffset: i * 2, as: UInt16.self))
            case .bf16:
                values[i] = Float(
                    BFloat16(
                        bitPattern: source.loadUnaligned(fromByteOffset: i * 2, as: UInt16.self)))
            default:
                throw Refusal(
                    "parameter '\(parameter.name)' is \(type.rawValue), not f32, f16, bf16")
            }
        }
        return (UnsafePointer(values), count)
    }

    /// The rotary table of frequencies, shared by the layers.
    func rotaryTable(_ parameter: PlanParameter, magnitude: Double) throws -> RotaryTable {
        let key = RotaryTable.Key(name: parameter.name, magnitude: magnitude.bitPattern)
        if let table = rotaryTables[key] { return table }
        let (values, count) = try vector(parameter)
        let table = try RotaryTable(
            frequencies: (0..<count).map { Double(values[$0]) }, magnitude: magnitude,
            positions: limits.maxContext)
        rotaryTables[key] = table
        return table
    }
}

/// Cosines and sines by position, computed up to the largest position met so far.
///
/// `@unchecked Sendable`: grown by the dispatcher before a step, read by its team during it.
final class RotaryTable: @unchecked Sendable {
    struct Key: Hashable {
        let name: String
        let magnitude: UInt64
    }
    /// Pairs of a head.
    let pairCount: Int
    let cosines: UnsafeMutablePointer<Float>
    let sines: UnsafeMutablePointer<Float>
    private let frequencies: [Double]
    private let magnitude: Double
    private let memory: MappedArena
    private let capacity: Int
    private var ready = 0

    init(frequencies: [Double], magnitude: Double, positions: Int) throws {
        self.frequencies = frequencies
        self.magnitude = magnitude
        pairCount = frequencies.count
        let (half, overflow) = (positions * 4).multipliedReportingOverflow(by: frequencies.count)
        guard !overflow, half < 1 << 40 else { throw Refusal("rotary tables are too large") }
        memory = try MappedArena(count: 2 * half, purpose: "rotary tables")
        cosines = memory.base.assumingMemoryBound(to: Float.self)
        sines = (memory.base + half).assumingMemoryBound(to: Float.self)
        capacity = positions
    }

    /// Makes rows `0 ..< count` ready.
    func ensure(_ count: Int) {
        guard count > ready else { return }
        let target = min((count + 255) / 256 * 256, capacity)
        martlet_rotary_table(frequencies, pairCount, magnitude, ready, target, cosines, sines)
        ready = target
    }
}
