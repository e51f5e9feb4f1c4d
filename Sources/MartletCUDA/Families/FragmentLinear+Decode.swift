// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// `linear_decode`: 1 to 8 rows a launch, norm, gate and residual inside.
extension FragmentLinear {
    /// Most rows of one launch; costs take it for the rows that read a weight once.
    static let decodeLaunchRows = 8

    /// Rows up to which it runs, `linear_batch` above them.
    ///
    /// H100, a layer of baichuan2-7b, us (`linear_decode` 4, 8 rows; `linear_batch` 8): bf16 141.9, 145.4; 138.4; int8 76.0,
    /// 83.4; 75.7; int4 g128 48.3, 55.8; 48.6 (`bench_batch.py`, before its ring's last chunk waited for x).
    static func mostDecodeRows(_ target: KernelArchitecture) -> Int {
        target.hasWarpgroups ? 4 : decodeLaunchRows
    }
    /// Blocks: one per multiprocessor of an H100; other counts give the same results.
    private static let blockLimit = 132
    private static let warps = 16

    private func defines(rows: Int) -> [String: String] {
        let grid = min(Self.blockLimit, layout.strips)
        // 4 KB a warp, half of it where scales need the registers.
        let isCrowded =
            layout.scheme?.bits == 4
            && (layout.groupSize == 32 || layout.groupSize == 64 && (layout.hasZeros || rows > 1))
        let depth = max((isCrowded ? 4 : 8) / layout.chunkWords, 1)
        var defines = kernelDefines
        for (name, value) in [
            ("TOKENS", rows), ("GRID", grid), ("WARPS", Self.warps), ("DEPTH", depth),
            ("NORM", norm == nil ? 0 : 1), ("INTERLEAVE", layout.interleave),
        ] { defines[name] = "\(value)" }
        return defines
    }

    /// Bytes of shared memory, as the kernel lays it out.
    private func sharedBytes(rows: Int) -> Int {
        let grid = min(Self.blockLimit, layout.strips)
        let most = (layout.strips + grid - 1) / grid
        let chunks = layout.stripChunks
        let touched =
            ((most * chunks + Self.warps - 1) / Self.warps + chunks - 2) / chunks + 1
        var slots = 1
        while slots < touched { slots *= 2 }
        var bytes = (layout.inputs + 31) / 32 * (rows * 64 + 16)
        bytes += Self.warps * slots * 16 * rows * 4
        if layout.scheme != nil {
            let sumInputs = layout.groupSize > 0 ? layout.groupSize : min(layout.chunkInputs, 128)
            bytes += layout.inputs / sumInputs * rows * (layout.hasZeros ? 8 : 4)
        }
        return bytes + rows * Self.warps * 4
    }

    /// Rows of one launch on a device: x lies in shared memory.
    private func decodeRows(_ target: KernelArchitecture) -> Int {
        [8, 4, 2].first {
            $0 <= Self.mostDecodeRows(target)
                && sharedBytes(rows: $0) <= target.sharedMemoryPerBlock
        } ?? 1
    }

    /// A kernel for one row, and one that is launched for each 4 or 8 rows, or as many as fit, up to a limit.
    func decodeLaunches(_ binder: CUDABinder, upTo limit: Int) throws -> [KernelLaunch] {
        let gamma = try norm.map { try binder.memory.converted($0.gamma, to: x.type) }
        let rows = decodeRows(binder.memory.target)
        var launches = [launch(gamma, rows: 1, from: 0) { $0 == 1 }]
        for start in stride(from: 0, to: limit, by: rows) where limit > 1 {
            launches.append(
                launch(gamma, rows: rows, from: start) {
                    $0 > 1 && $0 <= limit && start < $0
                })
        }
        return launches
    }

    private func launch(
        _ gamma: DeviceVector?, rows: Int, from start: Int,
        isWanted: @escaping @Sendable (Int) -> Bool
    ) -> KernelLaunch {
        var arguments = ArgumentBytes()
        arguments.add(x.rows(from: start))
        arguments.add(y.rows(from: start))
        arguments.add(residual?.rows(from: start))
        arguments.add(weight.codes)
        arguments.add(weight.codes + UInt64(layout.scaleStart))
        arguments.add(weight.codes + UInt64(layout.zeroStart))
        arguments.add(gamma?.address ?? 0)
        arguments.add(bias?.address ?? 0)
        arguments.add(norm?.epsilon ?? 0)
        let counts = x.rows
        let grid = min(Self.blockLimit, layout.strips)
        return KernelLaunch(
            module: KernelModule("decode/linear.cu", defines(rows: rows)), kernel: "linear_decode",
            arguments: arguments, block: Self.warps * 32, sharedBytes: sharedBytes(rows: rows)
        ) { values in
            isWanted(counts.evaluate(values) ?? 0) ? (grid, 1, 1) : (0, 0, 0)
        }
    }
}
