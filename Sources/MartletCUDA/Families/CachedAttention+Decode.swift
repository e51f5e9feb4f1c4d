// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `attention_decode`: one token of every request.
extension CachedAttention {
    private static let warps = 12
    private static let splits = 8

    private var tiles: Int { group > 8 ? 2 : 1 }
    private var headTiles: Int { (group + 8 * tiles - 1) / (8 * tiles) }

    private var sharedBytes: Int {
        let dim = shape.group.headDim
        let padded = (dim + 31) / 32 * 32
        let query = padded * 2 + (padded * 2 % 128 == 0 ? 64 : 0)
        let parts = 8 * tiles * query + 2 * ((dim + 63) / 64) * 128
        return parts + Self.warps * min(group, 8 * tiles) * (dim + 2) * 4
    }

    private var decodeDefines: [String: String] {
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

    func decodeLaunch(_ binder: CUDABinder) throws -> KernelLaunch {
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
        arguments.add(shape.nextLayer)
        arguments.add(int: window)
        arguments.add(scale)
        arguments.add(softCap)
        return KernelLaunch(
            module: KernelModule("decode/attention.cu", decodeDefines), kernel: "attention_decode",
            arguments: arguments, block: Self.warps * 32, sharedBytes: sharedBytes
        ) { (Self.splits, kvTiles, $0.tokens) }
    }
}
