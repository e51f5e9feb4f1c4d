// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `attention_decode`: requests of one token each, in front of all others.
extension CachedAttention {
    /// One launch for each bucket of requests; those of other buckets are empty.
    func decodeLaunches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let limits = binder.memory.limits
        let splits = DevicePlan.buckets(limits).map { bucket in
            (
                bucket,
                AttentionSplit(
                    requests: DevicePlan.codeBucket(bucket),
                    kvHeads: shape.group.kvHeadCount, group: group,
                    headDim: shape.group.headDim, target: binder.memory.target)
            )
        }
        // Scratch is used by one launch at a time, and zero after it as before.
        let kvHeads = shape.group.kvHeadCount
        let partials = try binder.memory.scratch(
            splits.map { $0 * heads * $1.parts * (shape.group.headDim + 2) * 4 }.max() ?? 0,
            for: "attention scratch")
        let counters = try binder.memory.scratch(
            splits.map { $0 * kvHeads * $1.headTiles * $1.cluster * 4 }.max() ?? 0,
            for: "attention counters")
        var least = 0
        return splits.map { bucket, split in
            let from = least
            least = bucket
            return launch(binder, split, partials, counters).limited {
                $0.singles > from && $0.singles <= bucket
            }
        }
    }

    private func launch(
        _ binder: CUDABinder, _ split: AttentionSplit, _ partials: UInt64, _ counters: UInt64
    ) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        for view in views { arguments.add(view) }
        DeviceRotation.add(rotation, to: &arguments)
        shape.addPages(binder, to: &arguments)
        arguments.add(slopes?.address ?? 0)
        arguments.add(partials)
        arguments.add(counters)
        arguments.add(int: window)
        arguments.add(scale)
        arguments.add(softCap)
        let kvTiles = shape.group.kvHeadCount * split.headTiles
        return KernelLaunch(
            module: KernelModule("decode/attention.cu", defines(split)),
            kernel: "attention_decode", arguments: arguments, block: split.warps * 32,
            sharedBytes: split.sharedBytes
        ) { (split.splits, kvTiles, $0.singles) }
    }

    private func defines(_ split: AttentionSplit) -> [String: String] {
        var defines: [String: String] = [
            "ACTIVATION": DeviceType.define(views[0].type),
            "KV": DeviceType.define(shape.group.scheme.dtype),
        ]
        for (name, value) in split.defines { defines[name] = "\(value)" }
        for (name, value) in [
            ("HEAD_DIM", shape.group.headDim), ("GROUP", group), ("PAGE", shape.group.blockSize),
            ("ROTARY", rotation.map { $0.isHalf ? 1 : 2 } ?? 0),
            ("WINDOW", window > 0 ? 1 : 0), ("ALIBI", slopes == nil ? 0 : 1),
            ("SOFT_CAP", softCap > 0 ? 1 : 0),
        ] { defines[name] = "\(value)" }
        return defines
    }
}
