// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `rotate_prefill`, then `attention_prefill` or `attention_prefill_mma`: any tokens of any requests behind those of one
/// token each.
extension CachedAttention {
    /// Part of an H100's second cache that keys and values of heads side by side may take, in bytes.
    private static let cachedBytes = 40_000_000
    /// Multiprocessors of an H100.
    private static let multiprocessors = 132
    /// Head dimensions of `attention_prefill`.
    private static let warpgroupDims: Set = [64, 80, 96, 128, 256]

    /// Nil where the kernels do not fit.
    func prefillLaunches(_ binder: CUDABinder) throws -> [KernelLaunch]? {
        guard shape.group.scheme.dtype == views[0].type else { return nil }
        var query = views[0]
        var turned: DeviceRows?
        if rotation != nil {
            let rows = query.rows.evaluate(binder.memory.limits.dimensions) ?? 0
            query = DeviceRows(
                address: try binder.memory.scratch(
                    (rows + 8) * query.columns * 2, for: "queries of prefill"),
                stride: query.columns, columns: query.columns, rows: query.rows, type: query.type)
            turned = query
        }
        let attend =
            usesWarpgroups(binder)
            ? try warpgroupLaunch(binder, query) : warpLaunch(binder, query)
        return [rotateLaunch(binder, to: turned), attend]
    }

    private func usesWarpgroups(_ binder: CUDABinder) -> Bool {
        binder.memory.target.hasWarpgroups && Self.warpgroupDims.contains(shape.group.headDim)
            && binder.memory.pages.pageBytes % rowBytes == 0
    }

    private var rowBytes: Int { shape.group.headDim * 2 }

    private func rotateLaunch(_ binder: CUDABinder, to turned: DeviceRows?) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(binder.step(.positions))
        for view in views.prefix(3) { arguments.add(view) }
        arguments.add(turned)
        DeviceRotation.add(rotation, to: &arguments)
        shape.addPages(binder, to: &arguments)
        let group = shape.group
        let vectors = (heads + 2 * group.kvHeadCount) * group.headDim / 8
        return KernelLaunch(
            module: KernelModule(
                "prefill/rows.cu",
                [
                    "ACTIVATION": DeviceType.define(views[0].type),
                    "HEADS": "\(heads)", "KV_HEADS": "\(group.kvHeadCount)",
                    "HEAD_DIM": "\(group.headDim)",
                    "ROTARY": "\(rotation.map { $0.isHalf ? 1 : 2 } ?? 0)",
                ]), kernel: "rotate_prefill", arguments: arguments, block: 256
        ) { ($0.tokens - $0.singles, (vectors + 255) / 256, 1) }
    }

    private func warpgroupLaunch(_ binder: CUDABinder, _ query: DeviceRows) throws -> KernelLaunch {
        let (group, pages) = (shape.group, binder.memory.pages)
        // A third warpgroup where registers allow it.
        let groups = group.headDim == 64 && softCap == 0 ? 3 : 2
        let tileRows = groups * 64
        var arguments = ArgumentBytes()
        arguments.add(
            TensorMatrix(
                address: query.address, type: query.type, columns: query.columns,
                rows: binder.memory.limits.maxTokens, stride: query.stride, boxRows: tileRows))
        arguments.add(
            TensorMatrix(
                address: pages.address, type: query.type, columns: group.headDim,
                rows: pages.pageBytes / rowBytes * pages.pageCount, stride: group.headDim,
                boxRows: 64))
        addTask(binder, to: &arguments)
        // Zero after each launch as before.
        arguments.add(try binder.memory.scratch(4, for: "tiles of prefill"))
        let heads = heads
        return KernelLaunch(
            module: module("prefill/attention.cu", ["GROUPS": groups]),
            kernel: "attention_prefill", arguments: arguments, block: (groups + 1) * 128,
            isSizedByCode: true
        ) { (min(Self.multiprocessors, heads * Self.headTiles($0, tileRows)), 1, 1) }
    }

    private func warpLaunch(_ binder: CUDABinder, _ query: DeviceRows) -> KernelLaunch {
        let (warps, rowTiles) = (4, shape.group.headDim > 128 ? 1 : 2)
        let tileRows = warps * rowTiles * 16
        // Queries, and two stages of keys and values: 64 of each where they fit.
        let fits =
            (tileRows + 4 * 64) * (rowBytes + 16) <= binder.memory.target.sharedMemoryPerBlock
        let keys = rowTiles == 2 && fits ? 64 : 32
        var arguments = ArgumentBytes()
        arguments.add(query)
        addTask(binder, to: &arguments)
        let heads = heads
        return KernelLaunch(
            module: module(
                "prefill/attention_mma.cu",
                ["WARPS": warps, "ROW_TILES": rowTiles, "KEYS": keys]),
            kernel: "attention_prefill_mma", arguments: arguments, block: warps * 32,
            isSizedByCode: true
        ) { (heads * Self.headTiles($0, tileRows), 1, 1) }
    }

    /// Tiles of so many rows of a head, at most.
    private static func headTiles(_ values: Dimension.Values, _ rows: Int) -> Int {
        (values.tokens - values.singles) / rows + values.requests - values.singles
    }

    /// `AttentionTask`.
    private func addTask(_ binder: CUDABinder, to arguments: inout ArgumentBytes) {
        arguments.add(binder.memory.inputs.counts)
        shape.addPages(binder, to: &arguments)
        arguments.add(binder.step(.queryStart))
        arguments.add(views[3])
        arguments.add(slopes?.address ?? 0)
        arguments.add(scale)
        arguments.add(softCap)
        arguments.add(int: headsAtOnce(binder.memory.limits.maxContext))
        arguments.add(int: 0)
    }

    private func module(_ source: String, _ shape: [String: Int]) -> KernelModule {
        let group = self.shape.group
        var defines = [
            "ACTIVATION": DeviceType.define(views[0].type), "HEAD_DIM": "\(group.headDim)",
            "HEADS": "\(heads)", "KV_HEADS": "\(group.kvHeadCount)", "WINDOW": "\(window)",
            "SOFT_CAP": softCap > 0 ? "1" : "0", "ALIBI": slopes == nil ? "0" : "1",
        ]
        for (name, value) in shape { defines[name] = "\(value)" }
        return KernelModule(source, defines)
    }

    /// The greatest divisor of the heads whose keys and values fit the second cache.
    private func headsAtOnce(_ context: Int) -> Int {
        let bytes = context * 2 * rowBytes
        return (1...heads).last {
            heads % $0 == 0 && ($0 == 1 || $0 * bytes / self.group <= Self.cachedBytes)
        } ?? 1
    }
}
