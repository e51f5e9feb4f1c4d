// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// A norm between two linears that has no kernel of its own (`linear_norm.cuh`): what the linear in front leaves.
struct SharedNorm {
    /// Which of the two a linear is.
    enum Side {
        /// It applies the norm that it begins with.
        case inFront
        /// It leaves what the norm behind it needs.
        case behind

        /// Definitions of the kernels.
        static func defines(_ side: Side?) -> [String: Int] {
            ["FACTOR": side == .inFront ? 1 : 0, "NEXT_NORM": side == .behind ? 1 : 0]
        }
    }

    /// Where the norm stands of the linear that has this.
    let side: Side
    /// Results times the norm's weight.
    let scaled: DeviceRows
    let gamma: DeviceVector
    let epsilon: Float
    /// Sums of squares of rows, `[parts][rowLimit]` in f32.
    let squares: UInt64
    let rowLimit: Int
    /// Parts that `linear_batch` in front leaves, by its most rows, and those of `linear_prefill`.
    let batchParts: [Int: Int]
    let prefillParts: Int
}

extension ArgumentBytes {
    /// `SharedNorm` of the kernels; zeros for an absent one.
    ///
    /// - Parameters:
    ///   - start: First row.
    ///   - parts: How many blocks or warpgroups add up squares of a row.
    mutating func add(_ norm: SharedNorm?, from start: Int = 0, parts: Int) {
        add(norm?.scaled.rows(from: start))
        add(norm?.gamma.address ?? 0)
        add(norm.map { $0.squares + UInt64(start * 4) } ?? 0)
        add(int: norm?.rowLimit ?? 0)
        add(int: parts)
        add(norm?.epsilon ?? 0)
        add(Float(0))
    }
}

extension FragmentLinear {
    /// Rows that the linear in front has multiplied by the norm's weight; nil where it has not.
    var scaledInput: DeviceRows? { shared?.side == .inFront ? shared?.scaled : nil }

    /// The norm that this linear and one beside it share, if they do.
    func sharedNorm(_ binder: CUDABinder) throws -> SharedNorm? {
        if norm != nil, let other = binder.neighbour(-1), let front = try FragmentLinear(other) {
            return try Self.sharedNorm(front, self, binder, .inFront)
        }
        if residual != nil, let other = binder.neighbour(1),
            let behind = try FragmentLinear(other)
        {
            return try Self.sharedNorm(self, behind, binder, .behind)
        }
        return nil
    }

    /// What two linears in a row share, the second with a norm of what the first results in.
    private static func sharedNorm(
        _ front: FragmentLinear, _ behind: FragmentLinear, _ binder: CUDABinder,
        _ side: SharedNorm.Side
    ) throws -> SharedNorm? {
        let memory = binder.memory
        // Numbers that are not normalized may exceed f16.
        guard let norm = behind.norm, front.residual != nil, memory.target.hasWarpgroups,
            front.y == behind.x, front.y.type == .bf16, front.x.type == .bf16,
            behind.y.type == .bf16, front.outputs % 16 == 0,
            front.canPrefill(binder) && behind.canPrefill(binder),
            let shapes = front.batchShapes(memory.target, norm: .behind),
            behind.batchShapes(memory.target, norm: .inFront) != nil
        else { return nil }
        var most = front.y.rows.evaluate(memory.limits.dimensions) ?? 0
        // For more rows a kernel of its own costs little.
        if !memory.isDeterministic { most = min(most, PrefillTile.sharedLimit) }
        guard memory.isDeterministic || most > mostDecodeRows(memory.target) else { return nil }
        let batchParts = Dictionary(uniqueKeysWithValues: shapes.map { ($0.tokens, $0.grid) })
        let prefillParts = (front.outputs + 127) / 128 * 2
        let parts = max(prefillParts, batchParts.values.max() ?? 0)
        let stride = (front.y.columns + 7) / 8 * 8
        // Boxes of x are whole ones.
        let rows = (most + 255) / 256 * 256
        return SharedNorm(
            side: side,
            scaled: DeviceRows(
                address: try memory.scratch(
                    rows * stride * DType.bf16.byteCount, for: "rows of a shared norm"),
                stride: stride, columns: front.y.columns, rows: front.y.rows, type: .bf16),
            gamma: try memory.converted(norm.gamma, to: .bf16), epsilon: norm.epsilon,
            squares: try memory.scratch(
                rows * parts * 4, for: "squares of a shared norm"), rowLimit: rows,
            batchParts: batchParts, prefillParts: prefillParts)
    }
}
