// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// Positions, the paged cache, and attention over it.
    static let attentionFamilies: [CUDAFamily] = [
        CUDAFamily(
            "rotary_plain", op: "rotary",
            decide: { query in
                let layout = try query.vector(2, count: nil)
                return try query.rowDecision(inputs: [0], layouts: [nil, nil, layout], work: 8)
            }, bind: bindRotary),
        CUDAFamily(
            "kvWrite_plain", op: "kvWrite",
            decide: { query in
                let (k, v) = (try query.operand(0), try query.operand(1))
                let bytes = k.rows * (2 * (try query.rowBytes(k) + query.rowBytes(v)))
                let cost = KernelCost(
                    bytes: bytes, operations: 0, operationsPerSecond: CUDACatalog.plainRate)
                return (cost, [nil, nil])
            },
            bind: { binder in
                let shape = try AttentionShape(binder)
                return [try writeLaunch(binder, shape, keys: 0, values: 1, rotation: nil)]
            }),
        decodeAttention, attention("attention", slopes: 3, isFused: false),
        attention("cachedAttention", slopes: 5, isFused: true),
    ]

    static let attentionSource = "plain/attention.cu"
    static let maxHeadDim = 256

    private static func attention(_ op: String, slopes: Int, isFused: Bool) -> CUDAFamily {
        CUDAFamily(
            "\(op)_plain", op: op,
            decide: { query in
                let (q, result) = (try query.operand(0), try query.result())
                guard let headDim = query.attributes["headDim"]?.int,
                    (1...maxHeadDim).contains(headDim)
                else { throw Refusal("heads of up to \(maxHeadDim) are computed") }
                guard result.format == q.format else {
                    throw Refusal("results in \(result.format) are not made")
                }
                var layouts = [String?](repeating: nil, count: query.operands.count)
                if isFused, query.optional(4) != nil {
                    layouts[4] = try query.vector(4, count: nil)
                }
                if query.optional(slopes) != nil {
                    layouts[slopes] = try query.vector(slopes, count: nil)
                }
                let rows = isFused ? [q, try query.operand(1), try query.operand(2)] : [q]
                var bytes = result.rows * (try query.rowBytes(result))
                for type in rows { bytes = bytes + type.rows * (try query.rowBytes(type)) }
                // The context is not known here: reading one block per token stands for it.
                let cost = KernelCost(
                    bytes: bytes * 2, operations: q.rows * (64 * (q.columns ?? 0)),
                    operationsPerSecond: CUDACatalog.plainRate)
                return (cost, layouts)
            },
            bind: { try bindAttention($0, slopes: slopes, isFused: isFused) })
    }

    /// The plain kernels of attention, with rotation and cache write where they are fused.
    static func bindAttention(
        _ binder: CUDABinder, slopes: Int, isFused: Bool
    ) throws -> [KernelLaunch] {
        let shape = try AttentionShape(binder)
        var launches: [KernelLaunch] = []
        var rotation: DeviceRotation?
        if isFused {
            rotation = try DeviceRotation(binder, frequencies: 4, headDim: shape.group.headDim)
            launches.append(
                try writeLaunch(binder, shape, keys: 1, values: 2, rotation: rotation))
        }
        try binder.requireInput(isFused ? 3 : 2, "positions")
        launches.append(try attend(binder, shape, rotation, slopes: slopes))
        return launches
    }

    private static func module(_ type: DType, kv: DType) -> KernelModule {
        KernelModule(
            attentionSource, ["ACTIVATION": DeviceType.define(type), "KV": DeviceType.define(kv)])
    }

    @Sendable
    private static func bindRotary(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        try binder.requireSame(x, y)
        try binder.requireInput(1, "positions")
        let headDim = try binder.int("headDim", in: 2...max(x.columns, 2))
        try binder.require(
            x.columns % headDim == 0 && x.rows == .T,
            "\(x.columns) columns are no heads of \(headDim)")
        guard let rotation = try DeviceRotation(binder, frequencies: 2, headDim: headDim) else {
            throw Refusal("rotary needs a style and frequencies")
        }
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        arguments.add(x)
        arguments.add(y)
        rotation.add(to: &arguments)
        arguments.add(int: x.columns)
        arguments.add(int: headDim)
        return [
            KernelLaunch(
                module: module(x.type, kv: .f32), kernel: "rotary_plain", arguments: arguments,
                block: 256, grid: elementGrid(.T, x.columns))
        ]
    }

    private static func writeLaunch(
        _ binder: CUDABinder, _ shape: AttentionShape, keys: Int, values: Int,
        rotation: DeviceRotation?
    ) throws -> KernelLaunch {
        let (k, v) = (try binder.rows(keys), try binder.rows(values))
        try shape.check(k, heads: shape.group.kvHeadCount)
        try shape.check(v, heads: shape.group.kvHeadCount)
        try binder.require(k.type == v.type, "keys and values differ in type")
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        arguments.add(k)
        arguments.add(v)
        DeviceRotation.add(rotation, to: &arguments)
        shape.addPages(binder, to: &arguments)
        let heads = shape.group.kvHeadCount
        return KernelLaunch(
            module: module(k.type, kv: shape.group.scheme.dtype), kernel: "kv_write_plain",
            arguments: arguments, block: 128
        ) { ($0.tokens, heads, 1) }
    }

    private static func attend(
        _ binder: CUDABinder, _ shape: AttentionShape, _ rotation: DeviceRotation?, slopes: Int
    ) throws -> KernelLaunch {
        let (q, y) = (try binder.rows(0), try binder.result(0))
        try binder.requireSame(q, y)
        let heads = try binder.int("headCount", in: 1...1 << 16)
        try binder.require(
            heads % shape.group.kvHeadCount == 0,
            "\(heads) heads do not share \(shape.group.kvHeadCount) kv heads evenly")
        try shape.check(q, heads: heads)
        let window = try binder.int("window", in: 0...Int(Int32.max), default: 0)
        if let kept = shape.group.window {
            try binder.require(
                window > 0 && window <= kept, "a window of \(window) exceeds the group's \(kept)")
        }
        let isCausal = binder.flag("causal", default: true)
        try binder.require(
            !isCausal || shape.group.kind == .selfAttention,
            "causal attention over an encoder's tokens, of KV group '\(shape.group.name)'")
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        arguments.add(binder.step(.requestIndex))
        arguments.add(q)
        arguments.add(y)
        DeviceRotation.add(rotation, to: &arguments)
        shape.addPages(binder, to: &arguments)
        arguments.add(try binder.vector(slopes, count: heads))
        arguments.add(int: heads)
        arguments.add(int: window)
        arguments.add(int: isCausal ? 1 : 0)
        arguments.add(Float(try binder.float("scale")))
        arguments.add(Float(try binder.float("softCap", default: 0)))
        return KernelLaunch(
            module: module(q.type, kv: shape.group.scheme.dtype), kernel: "attention_plain",
            arguments: arguments, block: 128
        ) { ($0.tokens, (heads + 3) / 4, 1) }
    }
}

/// A KV group and the layer in it, checked against each other.
struct AttentionShape {
    let groupIndex: Int
    let group: KVGroup
    let layer: Int

    init(_ binder: CUDABinder) throws {
        (groupIndex, group) = try binder.group()
        layer = try binder.int("layer", in: 0...group.layerCount - 1)
        _ = try binder.int("kvHeadCount", in: group.kvHeadCount...group.kvHeadCount)
        _ = try binder.int("headDim", in: group.headDim...group.headDim)
        guard group.headDim <= CUDAFamily.maxHeadDim else {
            throw Refusal("heads of \(group.headDim) exceed \(CUDAFamily.maxHeadDim)")
        }
    }

    /// Fails unless rows hold so many heads per token.
    func check(_ view: DeviceRows, heads: Int) throws {
        guard view.rows == .T, view.columns == heads * group.headDim else {
            throw Refusal("\(view.columns) columns are not \(heads) heads of \(group.headDim)")
        }
    }

    /// Bytes of a layer's keys and values in a block of 64 tokens.
    private var layerBytes: Int {
        2 * group.kvHeadCount * CUDACatalog.kvBlock * group.headDim * group.scheme.dtype.byteCount
    }

    /// `KVPages`.
    func addPages(_ binder: CUDABinder, to arguments: inout ArgumentBytes) {
        let pages = binder.memory.pages
        let inputs = binder.memory.inputs
        arguments.add(pages.address)
        arguments.add(Int64(pages.pageBytes))
        arguments.add(Int64(layerBytes * group.layerCount))
        arguments.add(Int64(layerBytes * layer))
        for field in [StepGroupField.kvStart, .kvLength, .blockTable, .slot] {
            arguments.add(inputs.address(field, group: groupIndex))
        }
        arguments.add(int: inputs.tableColumns(group: groupIndex))
        arguments.add(int: group.blockSize)
        arguments.add(int: group.kvHeadCount)
        arguments.add(int: group.headDim)
    }
}

/// A rotary table in device memory and how pairs lie.
struct DeviceRotation {
    let table: RotaryTable
    let isHalf: Bool

    /// Reads `style`, `magnitude` and the frequencies; nil for style `none`.
    init?(_ binder: CUDABinder, frequencies index: Int, headDim: Int) throws {
        let style = try binder.word(
            "style", of: ["half", "interleaved", "none"],
            default: binder.has(index) ? "half" : "none")
        guard style != "none" else { return nil }
        isHalf = style == "half"
        table = try binder.rotaryTable(index, magnitude: binder.float("magnitude", default: 1))
        try binder.require(
            table.pairCount * 2 <= headDim,
            "\(table.pairCount) frequencies exceed heads of \(headDim)")
    }

    func add(to arguments: inout ArgumentBytes) { Self.add(self, to: &arguments) }

    /// `Rotation`; nil for none.
    static func add(_ rotation: DeviceRotation?, to arguments: inout ArgumentBytes) {
        arguments.add(rotation?.table.cosines ?? 0)
        arguments.add(rotation?.table.sines ?? 0)
        arguments.add(int: rotation?.table.pairCount ?? 0)
        arguments.add(int: rotation?.isHalf == true ? 1 : 0)
    }
}
