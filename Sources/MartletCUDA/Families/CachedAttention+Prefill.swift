// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `rotate_prefill`, then `attention_prefill`: any tokens of any requests.
extension CachedAttention {
    /// Part of an H100's second cache that keys and values of heads side by side may take, in bytes.
    private static let cachedBytes = 40_000_000

    /// Nil where the kernels do not fit.
    func prefillLaunches(_ binder: CUDABinder) throws -> [KernelLaunch]? {
        let group = shape.group
        guard binder.memory.target.hasWarpgroups, group.headDim == 64 || group.headDim == 128,
            group.scheme.dtype == views[0].type, binder.memory.pages.pageBytes % rowBytes == 0
        else { return nil }
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
        return [rotateLaunch(binder, to: turned), attendLaunch(binder, query)]
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
                    "ACTIVATION": DeviceType.define(views[0].type), "RESULT": "0",
                    "HEADS": "\(heads)", "KV_HEADS": "\(group.kvHeadCount)",
                    "HEAD_DIM": "\(group.headDim)",
                    "ROTARY": "\(rotation.map { $0.isHalf ? 1 : 2 } ?? 0)",
                ]), kernel: "rotate_prefill", arguments: arguments, block: 256
        ) { ($0.tokens, (vectors + 255) / 256, 1) }
    }

    private func attendLaunch(_ binder: CUDABinder, _ query: DeviceRows) -> KernelLaunch {
        let (group, pages, inputs) = (shape.group, binder.memory.pages, binder.memory.inputs)
        let limits = binder.memory.limits
        var arguments = ArgumentBytes()
        arguments.add(
            TensorMatrix(
                address: query.address, type: query.type, columns: query.columns,
                rows: limits.maxTokens, stride: query.stride, boxRows: 128))
        arguments.add(
            TensorMatrix(
                address: pages.address, type: query.type, columns: group.headDim,
                rows: pages.pageBytes / rowBytes * pages.pageCount, stride: group.headDim,
                boxRows: 64))
        arguments.add(inputs.counts)
        shape.addPages(binder, to: &arguments)
        arguments.add(binder.step(.queryStart))
        arguments.add(views[3])
        arguments.add(slopes?.address ?? 0)
        arguments.add(scale)
        arguments.add(softCap)
        arguments.add(int: headsAtOnce(limits.maxContext))
        arguments.add(int: 0)
        let count = heads
        return KernelLaunch(
            module: KernelModule(
                "prefill/attention.cu",
                [
                    "ACTIVATION": DeviceType.define(query.type), "HEAD_DIM": "\(group.headDim)",
                    "HEADS": "\(heads)", "KV_HEADS": "\(group.kvHeadCount)", "WINDOW": "\(window)",
                    "SOFT_CAP": softCap > 0 ? "1" : "0", "ALIBI": slopes == nil ? "0" : "1",
                ]), kernel: "attention_prefill", arguments: arguments, block: 384
        ) { (count * ($0.tokens / 128 + $0.requests), 1, 1) }
    }

    /// The greatest divisor of the heads whose keys and values fit the second cache.
    private func headsAtOnce(_ context: Int) -> Int {
        let bytes = context * 2 * rowBytes
        return (1...heads).last {
            heads % $0 == 0 && ($0 == 1 || $0 * bytes / self.group <= Self.cachedBytes)
        } ?? 1
    }
}
