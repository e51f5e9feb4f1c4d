// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

extension CPUOp {
    /// `norm(x, weight?, bias?)`.
    static let norm = CPUOp(
        "norm",
        families: [
            KernelFamily("norm", op: "norm") { query in
                let columns = try query.operand(0).columns
                let layouts = [
                    nil, try query.vector(1, count: columns), try query.vector(2, count: columns),
                ]
                return try query.rowDecision(inputs: [0], codedResult: true, layouts: layouts)
            }
        ],
        bind: { try NormKernel(binder: $0, adds: false) })

    /// `addNorm(x, y, weight?, bias?)`: the sum, and its norm.
    static let addNorm = CPUOp(
        "addNorm",
        families: [
            KernelFamily("addNorm", op: "addNorm") { query in
                let columns = try query.operand(0).columns
                guard try query.result().format.dtype != nil else {
                    throw Refusal("the sum is kept in \(try query.result().format)")
                }
                let layouts = [
                    nil, nil, try query.vector(2, count: columns),
                    try query.vector(3, count: columns),
                ]
                return try query.rowDecision(inputs: [0, 1], codedResult: true, layouts: layouts)
            }
        ],
        bind: { try NormKernel(binder: $0, adds: true) })
}

/// Root-mean-square and layer norms of rows, after an optional addition.
///
/// `@unchecked Sendable`: the arguments are addresses that never change.
final class NormKernel: BoundKernel, @unchecked Sendable {
    private let kernels: KernelTable
    private let arguments: martlet_norm_arguments
    private let isLayer: Bool
    private let rows: RowCount

    init(binder: Binder, adds: Bool) throws {
        let x = try binder.input(0)
        var arguments = martlet_norm_arguments()
        arguments.x = UnsafePointer(x.floats)
        arguments.x_stride = x.floatStride
        arguments.count = x.columns
        arguments.epsilon = Float(try binder.float("epsilon"))
        isLayer = try binder.word("kind", of: ["rms", "layer"]) == "layer"
        if adds {
            let y = try binder.input(1)
            try binder.requireSameShape(x, y)
            arguments.residual = UnsafePointer(y.floats)
            arguments.residual_stride = y.floatStride
            if let sum = try binder.optionalOutput(0) {
                try binder.requireSameShape(x, sum)
                arguments.sum = sum.floats
                arguments.sum_stride = sum.floatStride
            }
        }
        let first = adds ? 2 : 1
        arguments.weight = try binder.vector(first, count: x.columns)
        arguments.bias = try binder.vector(first + 1, count: x.columns)
        let result = try binder.rowOutput(adds ? 1 : 0)
        try binder.requireSameShape(x, result)
        arguments.output = result.output
        self.arguments = arguments
        rows = x.rows
        kernels = KernelTable(binder.kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let share = worker.share(of: rows(step))
        guard !share.isEmpty else { return }
        withUnsafePointer(to: arguments) {
            if isLayer {
                kernels.pointer.pointee.layer_norm($0, share.lowerBound, share.upperBound)
            } else {
                kernels.pointer.pointee.rms_norm($0, share.lowerBound, share.upperBound)
            }
        }
    }
}
