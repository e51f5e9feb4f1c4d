// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CPUOp {
    /// `slice(x)`: a copy of some columns, where a view will not do.
    static let slice = CPUOp(
        "slice",
        families: [
            KernelFamily("slice", op: "slice") { try $0.rowDecision(inputs: [0], work: 1) }
        ],
        bind: { binder in
            let x = try binder.input(0)
            let y = try binder.output(0)
            let start = try binder.int("start", in: 0...x.columns)
            try binder.require(
                y.columns <= x.columns - start && x.rows == y.rows,
                "columns \(start) ..< \(start + y.columns) exceed \(x.columns)")
            return CopyKernel([(x, start, y, 0, y.columns)])
        })

    /// `concat(a, b, ...)` along columns; rows are joined at build time, being parameters.
    static let concat = CPUOp(
        "concat",
        families: [
            KernelFamily("concat", op: "concat") { query in
                guard query.attributes["axis"]?.int == 1 else {
                    throw Refusal("rows are joined at build time only (axis 0)")
                }
                return try query.rowDecision(inputs: Array(query.operands.indices), work: 1)
            }
        ],
        bind: { binder in
            _ = try binder.int("axis", in: 1...1)
            let y = try binder.output(0)
            var parts: [CopyKernel.Part] = []
            var start = 0
            for index in binder.step.operands.indices {
                let x = try binder.input(index)
                try binder.require(
                    x.rows == y.rows && x.columns <= y.columns - start,
                    "operands exceed the result's \(y.columns) columns")
                parts.append((x, 0, y, start, x.columns))
                start += x.columns
            }
            try binder.require(
                start == y.columns, "operands have \(start) columns, not \(y.columns)")
            return CopyKernel(parts)
        })

    /// A reshape that keeps rows is a copy.
    ///
    /// Other reshapes are views of the compiler's.
    static let reshape = CPUOp(
        "reshape",
        families: [
            KernelFamily("reshape", op: "reshape") { query in
                let x = try query.operand(0)
                guard try x.columns == query.result().columns else {
                    throw Refusal("rows change their length from \(x) to \(try query.result())")
                }
                return try query.rowDecision(inputs: [0], work: 1)
            }
        ],
        bind: { try ElementwiseKernel(binder: $0, .copy) })

    /// `meanPool(x)`: the mean over each request's rows.
    static let meanPool = CPUOp(
        "meanPool", families: [rowFamily("meanPool")], bind: MeanPoolKernel.init(binder:))
}

/// Copies column ranges of f32 rows.
final class CopyKernel: BoundKernel, @unchecked Sendable {
    typealias Part = (from: RowView, fromColumn: Int, to: RowView, toColumn: Int, columns: Int)
    private let parts: [Part]

    init(_ parts: [Part]) { self.parts = parts }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        for part in parts {
            for row in worker.share(of: part.to.rows(step)) {
                (part.to.row(row) + part.toColumn).update(
                    from: part.from.row(row) + part.fromColumn, count: part.columns)
            }
        }
    }
}

/// Means of each request's rows, summed in f64 in row order.
final class MeanPoolKernel: BoundKernel {
    private let x: RowView
    private let y: RowView

    init(binder: Binder) throws {
        x = try binder.input(0)
        y = try binder.output(0)
        try binder.require(x.columns == y.columns, "columns \(x.columns) and \(y.columns) differ")
        try binder.requireRows(x, .T)
        try binder.requireRows(y, .B)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let starts = step.queryStart
        for request in 0..<step.requestCount {
            let rows = Int(starts[request])..<Int(starts[request + 1])
            let result = y.row(request)
            for column in worker.share(of: x.columns, unit: 16) {
                var sum = 0.0
                for row in rows { sum += Double(x.row(row)[column]) }
                result[column] = Float(sum / Double(max(rows.count, 1)))
            }
        }
    }
}
