// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `cachedAttention` on the tensor cores where every request has one token; other steps by the plain kernels.
    static let decodeAttention = CUDAFamily(
        "cachedAttention_decode", op: "cachedAttention",
        decide: { query in
            let (q, result) = (try query.operand(0), try query.result())
            guard let headDim = query.attributes["headDim"]?.int,
                let heads = query.attributes["headCount"]?.int,
                let kvHeads = query.attributes["kvHeadCount"]?.int, kvHeads > 0
            else { throw Refusal("heads and their sizes are not given") }
            try DecodeAttention.check(
                headDim: headDim, group: heads / kvHeads, type: q.format.dtype)
            guard result.format == q.format else {
                throw Refusal("results in \(result.format) are not made")
            }
            guard query.attributes["causal"]?.bool != false else {
                throw Refusal("rows see no later ones")
            }
            var layouts = [String?](repeating: nil, count: query.operands.count)
            if query.optional(4) != nil { layouts[4] = try query.vector(4, count: nil) }
            if let slopes = query.optional(5) {
                guard slopes.format == .plain(.f32) else { throw Refusal("slopes are f32") }
                layouts[5] = try query.vector(5, count: heads)
            }
            var bytes = result.rows * (try query.rowBytes(result))
            for index in 0..<3 {
                let type = try query.operand(index)
                bytes = bytes + type.rows * (try query.rowBytes(type))
            }
            // Less than the plain family's, whose kernels it falls back to.
            let cost = KernelCost(
                bytes: bytes, operations: q.rows * (64 * (q.columns ?? 0)),
                operationsPerSecond: CUDACatalog.plainRate)
            return (cost, layouts)
        },
        bind: { binder in
            let shape = try AttentionShape(binder)
            let plain = try bindAttention(binder, slopes: 5, isFused: true)
            let kvType = shape.group.scheme.dtype
            guard kvType == .f16 || kvType == .bf16 else { return plain }
            let attention = try DecodeAttention(binder, shape)
            guard attention.isRotationWhole else { return plain }
            let decode = try attention.launch(binder)
            // One of the two: the counts say which.
            return [
                limited(decode) { $0.tokens == $0.requests }
            ] + plain.map { launch in limited(launch) { $0.tokens != $0.requests } }
        })

    /// A launch that is left out where a condition on the counts does not hold.
    private static func limited(
        _ launch: KernelLaunch, where holds: @escaping @Sendable (Dimension.Values) -> Bool
    ) -> KernelLaunch {
        var copy = launch
        let grid = launch.grid
        copy.grid = { holds($0) ? grid($0) : (0, 0, 0) }
        return copy
    }
}

/// The kernel `attention_decode`, bound.
struct DecodeAttention {
    private static let warps = 12
    private static let splits = 8

    private let shape: AttentionShape
    private let heads: Int
    private let window: Int
    private let softCap: Float
    private let scale: Float
    private let rotation: DeviceRotation?
    private let slopes: DeviceVector?
    private let views: [DeviceRows]

    /// Fails where the kernel does not fit.
    static func check(headDim: Int, group: Int, type: DType?) throws {
        guard headDim % 16 == 0, (16...256).contains(headDim) else {
            throw Refusal("heads of \(headDim) are no multiples of 16 up to 256")
        }
        guard (1...16).contains(group) else {
            throw Refusal("\(group) heads share a kv head, up to 16 are computed")
        }
        guard type == .f16 || type == .bf16 else {
            throw Refusal("the tensor cores' kernels take f16 and bf16")
        }
    }

    init(_ binder: CUDABinder, _ shape: AttentionShape) throws {
        self.shape = shape
        heads = try binder.int("headCount", in: 1...1 << 16)
        window = try binder.int("window", in: 0...Int(Int32.max), default: 0)
        softCap = Float(try binder.float("softCap", default: 0))
        scale = Float(try binder.float("scale"))
        rotation = try DeviceRotation(binder, frequencies: 4, headDim: shape.group.headDim)
        slopes = try binder.vector(5, count: heads)
        views = [try binder.rows(0), try binder.rows(1), try binder.rows(2), try binder.result(0)]
        try Self.check(
            headDim: shape.group.headDim, group: heads / shape.group.kvHeadCount,
            type: views[0].type)
        try binder.require(slopes.map { $0.type == .f32 } ?? true, "slopes are f32")
        // Loads of 16 bytes.
        for view in views {
            try binder.require(
                view.address % 16 == 0 && view.stride % 8 == 0, "rows are not aligned to 16 bytes")
        }
    }

    /// Whether pairs are rotated by eights, as the kernel does.
    var isRotationWhole: Bool { rotation.map { $0.table.pairCount % 8 == 0 } ?? true }
    private var group: Int { heads / shape.group.kvHeadCount }
    private var tiles: Int { group > 8 ? 2 : 1 }
    private var headTiles: Int { (group + 8 * tiles - 1) / (8 * tiles) }

    private var sharedBytes: Int {
        let dim = shape.group.headDim
        let padded = (dim + 31) / 32 * 32
        let query = padded * 2 + (padded * 2 % 128 == 0 ? 64 : 0)
        let parts = 8 * tiles * query + 2 * ((dim + 63) / 64) * 128
        return parts + Self.warps * min(group, 8 * tiles) * (dim + 2) * 4
    }

    private var defines: [String: String] {
        var defines: [String: String] = [
            "ACTIVATION": DeviceType.define(views[0].type),
            "KV": DeviceType.define(shape.group.scheme.dtype),
        ]
        for (name, value) in [
            ("HEAD_DIM", shape.group.headDim), ("GROUP", group), ("TILES", tiles),
            ("WARPS", Self.warps), ("BLOCKS", 1), ("SPLITS", Self.splits), ("CLUSTER", 0),
            ("SPLIT_UNITS", 16), ("PAGE", shape.group.blockSize), ("RELEASE_LATE", 0),
            ("IDENTITY", 1), ("ROTARY", rotation.map { $0.isHalf ? 1 : 2 } ?? 0),
            ("WINDOW", window > 0 ? 1 : 0), ("ALIBI", slopes == nil ? 0 : 1),
            ("SOFT_CAP", softCap > 0 ? 1 : 0),
        ] { defines[name] = "\(value)" }
        return defines
    }

    func launch(_ binder: CUDABinder) throws -> KernelLaunch {
        let rows = binder.memory.limits.maxRequests
        let dim = shape.group.headDim
        let partials = try binder.memory.scratch(
            rows * heads * Self.splits * (dim + 2) * 4, for: "attention scratch")
        let kvTiles = shape.group.kvHeadCount * headTiles
        let counters = try binder.memory.scratch(rows * kvTiles * 4, for: "attention counters")
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        arguments.add(binder.step(.requestIndex))
        for view in views { arguments.add(view) }
        DeviceRotation.add(rotation, to: &arguments)
        shape.addPages(binder, to: &arguments)
        arguments.add(slopes?.address ?? 0)
        arguments.add(partials)
        arguments.add(counters)
        arguments.add(Int64(0))
        arguments.add(int: window)
        arguments.add(scale)
        arguments.add(softCap)
        return KernelLaunch(
            module: KernelModule("decode/attention.cu", defines), kernel: "attention_decode",
            arguments: arguments, block: Self.warps * 32, sharedBytes: sharedBytes
        ) { (Self.splits, kvTiles, $0.tokens) }
    }
}
