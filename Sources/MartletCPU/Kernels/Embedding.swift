// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

extension CPUOp {
    /// `embedding(table, ids)`: rows of a packed weight as f32.
    static let embedding = CPUOp(
        "embedding",
        families: [
            KernelFamily("embedding", op: "embedding") { query in
                let table = try query.operand(0)
                guard query.isParameter.indices.contains(0), query.isParameter[0] else {
                    throw Refusal("the table is no parameter")
                }
                guard let shape = table.fixedShape else {
                    throw Refusal("\(table) has no fixed shape")
                }
                let layout = try PanelLayout.name(table.format)
                var packed = try PanelLayout.describe(layout, table.format, shape)
                let row = martlet_weight_byte_count(&packed) / shape[0]
                let result = try query.result()
                let cost = KernelCost(
                    bytes: result.rows * (try row + query.rows(result)),
                    operations: result.rows * (2 * shape[1]), operationsPerSecond: 4e9)
                return (cost, [layout, nil])
            }
        ],
        bind: EmbeddingKernel.init(binder:))

    /// `gatherRows(x, rows)`: the rows whose logits are wanted.
    static let gatherRows = CPUOp(
        "gatherRows",
        families: [
            KernelFamily("gatherRows", op: "gatherRows") { query in
                let x = try query.operand(0)
                let result = try query.result()
                guard x.format == result.format, x.columns == result.columns else {
                    throw Refusal("\(x) and \(result) differ in format or columns")
                }
                let bytes = result.rows * (try 2 * query.rows(x, coded: true))
                let cost = KernelCost(bytes: bytes, operations: 0, operationsPerSecond: 1e9)
                return (cost, [nil, nil])
            }
        ],
        bind: GatherRowsKernel.init(binder:))
}

/// Looks token ids up; rows given as embeddings are copied from the step.
final class EmbeddingKernel: BoundKernel {
    private let kernels: KernelTable
    private let weight: SendableWeight
    private let result: RowView

    init(binder: Binder) throws {
        let weight = try binder.weight(0)
        try binder.requireInput(1, "tokens")
        result = try binder.output(0)
        try binder.require(
            result.columns == weight.input_count,
            "a result of \(result.columns) columns meets a table of \(weight.input_count)")
        try binder.requireRows(result, .T)
        binder.limitIds(to: weight.row_count)
        self.weight = SendableWeight(weight)
        kernels = KernelTable(binder.kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let share = worker.share(of: step.tokenCount)
        guard !share.isEmpty else { return }
        withUnsafePointer(to: weight.weight) {
            kernels.pointer.pointee.gather_rows(
                $0, step.ids, result.floats, result.floatStride, share.lowerBound, share.upperBound)
        }
        guard let embeddings = step.embeddings else { return }
        for t in share where step.embeddingRows[t] >= 0 {
            let from = embeddings + Int(step.embeddingRows[t]) * result.columns
            result.row(t).update(from: from, count: result.columns)
        }
    }
}

/// A described weight whose data is immutable.
struct SendableWeight: @unchecked Sendable {
    let weight: martlet_weight
    init(_ weight: martlet_weight) { self.weight = weight }
}

/// Copies the rows that need logits.
final class GatherRowsKernel: BoundKernel {
    private let source: RowView
    private let result: RowView

    init(binder: Binder) throws {
        source = try binder.rawInput(0)
        try binder.requireInput(1, "logitRows")
        guard let result = try binder.rawOutput(0) else { throw Refusal("result 0 is missing") }
        self.result = result
        try binder.require(
            source.format == result.format && source.columns == result.columns,
            "rows of \(source.format) and \(result.format), or of different columns")
        try binder.requireRows(source, .T)
        try binder.requireRows(result, .O)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        guard let rows = step.logitRows else { return }
        // Coded rows take all the bytes that their layout gives them.
        let bytes =
            source.format.dtype.map { $0.byteCount * source.columns }
            ?? martlet_int8g64_row_bytes(source.columns)
        for row in worker.share(of: step.logitRowCount) {
            result.raw(row).copyMemory(from: source.raw(Int(rows[row])), byteCount: bytes)
        }
    }
}
