// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `linear` on the tensor cores: `linear_decode` in groups of 8 rows, one weight layout for all counts.
    static let fragmentLinear = CUDAFamily(
        "linear_mma16x16", op: "linear",
        decide: { query in
            let (x, w, y) = (try query.operand(0), try query.operand(1), try query.result())
            let layout = try fragmentLayout(query, 1, activation: x.format)
            guard x.columns == layout.inputs else {
                throw Refusal("a weight \(w) does not fit an input \(x)")
            }
            if let bias = query.optional(2), bias.format != x.format {
                throw Refusal("a bias of \(bias.format) beside rows of \(x.format)")
            }
            let bias = try query.vector(2, count: layout.rows)
            let rowBytes = try query.rowBytes(x) + query.rowBytes(y)
            let cost = KernelCost(
                bytes: Dimension(layout.byteCount)
                    + x.rows * (layout.byteCount / DecodeLinear.mostRows + rowBytes),
                operations: x.rows * (2 * layout.rows * layout.inputs),
                operationsPerSecond: 400e12)
            return (cost, [nil, FragmentLayout.name, bias])
        },
        bind: { binder in
            let (x, y) = (try binder.rows(0), try binder.result(0))
            let weight = try binder.plainWeight(1)
            let bias = try binder.vector(2, count: weight.outputs)
            let decode = DecodeLinear(
                layout: try binder.fragments(1), weight: weight, x: x, y: y, bias: bias)
            return try decode.launches(binder)
                + [plainLaunch(binder, x, y, weight, bias: bias, above: DecodeLinear.rowLimit)]
        })

    /// `embedding` from a table that the head shares.
    static let fragmentEmbedding = CUDAFamily(
        "embedding_mma16x16", op: "embedding",
        decide: { query in
            let y = try query.result()
            let layout = try fragmentLayout(query, 0, activation: y.format)
            guard layout.inputs == y.columns else { throw Refusal("the table does not fit \(y)") }
            let cost = KernelCost(
                bytes: y.rows * (2 * (try query.rowBytes(y))), operations: 0,
                operationsPerSecond: CUDACatalog.plainRate)
            return (cost, [FragmentLayout.name, nil])
        }, bind: bindEmbedding)

    /// The layout of a weight beside rows of a type.
    static func fragmentLayout(
        _ query: KernelQuery, _ index: Int, activation: ElementFormat,
        name: String = FragmentLayout.name
    ) throws -> FragmentLayout {
        try query.requireParameter(index)
        let w = try query.operand(index)
        guard activation == .plain(.f16) || activation == .plain(.bf16) else {
            throw Refusal("the tensor cores' kernels take f16 and bf16, not \(activation)")
        }
        guard w.format.scheme != nil || w.format == activation else {
            throw Refusal("a weight of \(w.format) beside rows of \(activation)")
        }
        return try FragmentLayout(name, w.format, w.fixedShape ?? [])
    }
}

/// The kernel `linear_decode`, bound: constants, arguments, launches for 1 to 64 rows.
struct DecodeLinear {
    /// Rows of one launch.
    static let mostRows = 8
    /// Rows up to which it is launched again and again.
    static let rowLimit = 64
    /// Blocks: one per multiprocessor of an H100; other counts give the same results.
    private static let blockLimit = 132
    private static let warps = 16

    var layout: FragmentLayout
    var weight: PlainWeight
    var x: DeviceRows
    var y: DeviceRows
    var bias: DeviceVector?
    var residual: DeviceRows?
    /// Weight of a root-mean-square norm of x, and its epsilon.
    var norm: (gamma: DeviceVector, epsilon: Float)?
    /// 1: silu(gate) up; 2: gelu.
    var gated = 0

    private func defines(rows: Int) -> [String: String] {
        let grid = min(Self.blockLimit, layout.strips)
        // 4 KB a warp, half of it where scales need the registers.
        let isCrowded =
            layout.scheme?.bits == 4
            && (layout.groupSize == 32 || layout.groupSize == 64 && (layout.hasZeros || rows > 1))
        let depth = max((isCrowded ? 4 : 8) / layout.chunkWords, 1)
        var defines = weight.defines
        defines["LAYOUT"] = nil
        defines["SCALE"] = nil
        for (name, value) in [
            ("GROUP", layout.groupSize), ("INPUTS", layout.inputs),
            ("OUTPUTS", layout.isPaired ? layout.strips * 16 : layout.rows), ("TOKENS", rows),
            ("GRID", grid), ("WARPS", Self.warps), ("DEPTH", depth), ("EARLY", depth),
            ("NORM", norm == nil ? 0 : 1), ("GATED", gated), ("BIAS", bias == nil ? 0 : 1),
            ("RESIDUAL", residual == nil ? 0 : 1), ("ROW_INDEX", 0), ("LOGITS", 1),
            ("ARGMAX", 0), ("INTERLEAVE", 0), ("AHEAD", 0), ("PACE", 0), ("REGISTERS", 128),
        ] { defines[name] = "\(value)" }
        defines["ACTIVATION"] = DeviceType.define(x.type)
        defines["RESULT"] = DeviceType.define(y.type)
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
    private func rowsAtOnce(_ sharedLimit: Int) -> Int {
        [Self.mostRows, 4, 2].first { sharedBytes(rows: $0) <= sharedLimit } ?? 1
    }

    /// A kernel for one row, and one that is launched for each 8 rows, or as many as fit, up to the limit.
    func launches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        try binder.require(
            x.columns == layout.inputs && x.rows == y.rows, "input and result do not fit together")
        try binder.require(
            x.address % 16 == 0 && x.stride % 8 == 0, "rows are not aligned to 16 bytes")
        let most = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        let rows = rowsAtOnce(binder.memory.sharedLimit)
        var launches = [launch(binder, rows: 1, from: 0) { $0 == 1 }]
        for start in stride(from: 0, to: min(most, Self.rowLimit), by: rows) where most > 1 {
            launches.append(
                launch(binder, rows: rows, from: start) {
                    $0 > 1 && $0 <= Self.rowLimit && start < $0
                })
        }
        return launches
    }

    private func launch(
        _ binder: CUDABinder, rows: Int, from start: Int,
        isWanted: @escaping @Sendable (Int) -> Bool
    ) -> KernelLaunch {
        func moved(_ view: DeviceRows?) -> DeviceRows? {
            view.map {
                DeviceRows(
                    address: $0.address + UInt64(start * $0.stride * $0.type.byteCount),
                    stride: $0.stride, columns: $0.columns, rows: $0.rows, type: $0.type)
            }
        }
        var arguments = binder.arguments()
        arguments.add(rows: x.rows + Dimension(-start))
        arguments.add(moved(x))
        arguments.add(moved(y))
        arguments.add(moved(residual))
        arguments.add(UInt64(0))  // row index
        arguments.add(weight.codes)
        arguments.add(weight.codes + UInt64(layout.scaleStart))
        arguments.add(weight.codes + UInt64(layout.zeroStart))
        arguments.add(norm?.gamma.address ?? 0)
        arguments.add(bias?.address ?? 0)
        arguments.add(UInt64(0))  // candidates
        arguments.add(binder.memory.results.overflow)
        arguments.add(UInt64(0))  // next weights
        arguments.add(Int64(0))
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
