// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

/// Rotary on queries and keys, KV write, attention, and quantization of the result where asked.
///
/// Operands stay as they are: rotated heads go to scratch rows.
final class CachedAttentionKernel: BoundKernel {
    private let kernels: KernelTable
    private let queries: RowView
    private let keys: RowView
    private let rotatedQueries: RowView
    private let writer: KVWriter
    private let rotation: Rotation?
    private let attention: PagedAttention
    private let headsPerKV: Int
    /// Result rows as f32, and as codes where those are wanted.
    private let plain: RowView
    private let coded: RowView?

    init(binder: Binder) throws {
        let shape = try AttentionShape(binder: binder)
        queries = try binder.input(0)
        keys = try binder.input(1)
        let values = try binder.input(2)
        try binder.requireInput(3, "positions")
        try shape.check(keys, heads: shape.kvHeadCount, binder)
        try shape.check(values, heads: shape.kvHeadCount, binder)
        rotation = try Rotation(binder: binder, frequencies: 4, headDim: shape.headDim)
        rotatedQueries =
            rotation == nil
            ? queries : try binder.scratchRows(columns: queries.columns, rows: queries.rows)
        // The writer takes one stride for keys and values.
        let needsCopy = rotation != nil || keys.stride != values.stride
        let writtenKeys =
            needsCopy
            ? try binder.scratchRows(
                columns: keys.columns, rows: keys.rows, floatStride: values.floatStride) : keys
        kernels = KernelTable(binder.kernels)
        writer = KVWriter(
            kernels: kernels, layer: binder.resources.pages.layer(shape.layer, of: shape.group),
            groupIndex: shape.groupIndex, keys: writtenKeys, values: values)
        let result = try binder.rowOutput(0)
        try binder.require(
            result.columns == queries.columns, "queries and result differ in columns")
        if result.format == .activation(.int8g64) {
            coded = result
            plain = try binder.scratchRows(columns: result.columns, rows: result.rows)
        } else {
            coded = nil
            plain = result
        }
        attention = try PagedAttention(
            binder: binder, shape: shape, queries: rotatedQueries, result: plain, slopes: 5)
        headsPerKV = queries.columns / shape.headDim / shape.kvHeadCount
    }

    var phaseCount: Int { coded == nil ? 2 : 3 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        switch phase {
        case 0: prepare(step, worker)
        case 1: attention.run(step, worker: worker)
        default:
            let rows = worker.share(of: step.tokenCount)
            guard let coded, !rows.isEmpty else { return }
            QuantizeKernel.convert(kernels, plain, coded, rows, forward: true)
        }
    }

    private func prepare(_ step: StepState, _ worker: Worker) {
        let kvHeadCount = attention.kvHeadCount
        // A few tokens are shared out by heads, many by tokens.
        let byHeads = step.tokenCount < 4 * worker.count
        let heads = byHeads ? worker.share(of: kvHeadCount) : 0..<kvHeadCount
        let tokens = byHeads ? 0..<step.tokenCount : worker.share(of: step.tokenCount)
        guard !heads.isEmpty, !tokens.isEmpty else { return }
        if let rotation {
            let queryHeads = heads.lowerBound * headsPerKV..<heads.upperBound * headsPerKV
            rotation.run(
                kernels, queries, rotatedQueries, heads: queryHeads, tokens: tokens,
                positions: step.positions)
            rotation.run(
                kernels, keys, writer.keys, heads: heads, tokens: tokens, positions: step.positions)
        } else if writer.keys.base != keys.base {
            let first = heads.lowerBound * writer.layer.head_dim
            for t in tokens {
                (writer.keys.row(t) + first).update(
                    from: keys.row(t) + first, count: heads.count * writer.layer.head_dim)
            }
        }
        writer.run(step, heads: heads, tokens: tokens)
    }
}
