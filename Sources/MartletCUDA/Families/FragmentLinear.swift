// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// A linear on the tensor cores with what may stand before and after it: y = gate(norm(x) W^T + bias) + residual.
///
/// One weight layout for all row counts. Which kernel runs depends on the count: `+Decode` up to 4 or 8 rows,
/// `+Batch` above, `+Prefill` for prompts where the GPU has it. What these do not take, `+Plain` does.
struct FragmentLinear {
    /// Rows up to which the decode kernel is launched again and again where the batch kernel does not fit.
    static let decodeLimit = 64
    /// Rows up to which the batch kernel is, where there is one for prompts: with warpgroups, and without.
    static let batchLimits = (warpgroups: 64, without: 128)

    let layout: FragmentLayout
    let weight: PlainWeight
    let x: DeviceRows
    let y: DeviceRows
    var bias: DeviceVector?
    var residual: DeviceRows?
    /// Weight of a root-mean-square norm of x, and its epsilon.
    var norm: (gamma: DeviceVector, epsilon: Float)?
    /// 1: silu(gate) up; 2: gelu.
    var gate = 0
    /// A norm that it shares with a linear beside it.
    var shared: SharedNorm?

    /// Reads the weight of an operand.
    init(_ binder: CUDABinder, weight index: Int, x: DeviceRows, y: DeviceRows) throws {
        layout = try binder.fragments(index)
        weight = try binder.plainWeight(index)
        self.x = x
        self.y = y
    }

    /// Rows of the weight as kernels count them.
    var outputs: Int { layout.isPaired ? layout.strips * 16 : layout.rows }

    /// Kernels for every count of rows; those that do not apply have empty grids.
    func launches(_ binder: CUDABinder) throws -> [KernelLaunch] {
        try binder.require(
            x.columns == layout.inputs && x.rows == y.rows, "input and result do not fit together")
        try binder.require(
            x.address % 16 == 0 && x.stride % 8 == 0, "rows are not aligned to 16 bytes")
        if binder.memory.isDeterministic { return try deterministicLaunches(binder) }
        let most = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        let hasPrefill = canPrefill(binder)
        // Without warpgroups two launches for 64 rows each take less time than a prompt's kernel.
        let limits = Self.batchLimits
        let batchLimit =
            !hasPrefill
            ? max(most, limits.without)
            : binder.memory.target.hasWarpgroups ? limits.warpgroups : limits.without
        var launches: [KernelLaunch]
        let covered: Int
        let few = Self.mostDecodeRows(binder.memory.target)
        if most > few,
            let batch = try batchLaunches(binder, upTo: min(batchLimit, most))
        {
            launches = try decodeLaunches(binder, upTo: few) + batch
            covered = batchLimit
        } else {
            launches = try decodeLaunches(binder, upTo: min(most, Self.decodeLimit))
            covered = Self.decodeLimit
        }
        guard most > covered else { return launches }
        let rest = try hasPrefill ? prefillLaunches(binder) : plainLaunches(binder)
        let rows = x.rows
        launches += rest.map { launch in
            launch.limited { (rows.evaluate($0) ?? 0) > covered }
        }
        return launches
    }

    /// Definitions of the weight and of what is computed with it.
    var kernelDefines: [String: String] {
        var defines = weight.defines
        defines["LAYOUT"] = nil
        defines["SCALE"] = nil
        defines["ACTIVATION"] = DeviceType.define(x.type)
        defines["RESULT"] = DeviceType.define(y.type)
        for (name, value) in [
            ("GROUP", layout.groupSize), ("INPUTS", layout.inputs), ("OUTPUTS", outputs),
            ("GATED", gate), ("BIAS", bias == nil ? 0 : 1), ("RESIDUAL", residual == nil ? 0 : 1),
        ] { defines[name] = "\(value)" }
        return defines
    }

    /// Rows like others in memory that only this step's kernels use.
    func scratch(
        _ binder: CUDABinder, columns: Int, type: DType, for purpose: String
    ) throws -> DeviceRows {
        let rows = x.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        let stride = (columns + 7) / 8 * 8
        return DeviceRows(
            address: try binder.memory.scratch(
                (rows + 8) * stride * type.byteCount, for: purpose), stride: stride,
            columns: columns, rows: x.rows, type: type)
    }
}

extension KernelLaunch {
    /// The launch, left out where a condition on the counts does not hold.
    func limited(where holds: @escaping @Sendable (Dimension.Values) -> Bool) -> KernelLaunch {
        var copy = self
        let grid = grid
        copy.grid = { holds($0) ? grid($0) : (0, 0, 0) }
        return copy
    }
}
