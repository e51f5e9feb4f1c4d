// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

extension CPUOp {
    /// `quantize(x)`: f32 rows to int8g64.
    static let quantize = CPUOp(
        "quantize",
        families: [
            KernelFamily("quantize_int8g64", op: "quantize") { query in
                guard try query.result().format == .activation(.int8g64) else {
                    throw Refusal("rows are quantized to int8g64 only")
                }
                return try query.rowDecision(inputs: [0], codedResult: true)
            }
        ],
        bind: { try QuantizeKernel(binder: $0, forward: true) })

    /// `dequantize(x)`: int8g64 rows to f32.
    static let dequantize = CPUOp(
        "dequantize",
        families: [
            KernelFamily("dequantize_int8g64", op: "dequantize") { query in
                guard try query.operand(0).format == .activation(.int8g64) else {
                    throw Refusal("the input is \(try query.operand(0).format), not int8g64")
                }
                return try query.rowDecision(inputs: [0], codedInput: true)
            }
        ],
        bind: { try QuantizeKernel(binder: $0, forward: false) })
}

/// Conversion between f32 rows and int8g64 rows.
final class QuantizeKernel: BoundKernel {
    private let kernels: KernelTable
    private let plain: RowView
    private let coded: RowView
    private let forward: Bool

    init(binder: Binder, forward: Bool) throws {
        self.forward = forward
        if forward {
            plain = try binder.input(0)
            coded = try binder.rowOutput(0)
        } else {
            coded = try binder.rawInput(0)
            plain = try binder.output(0)
        }
        try binder.require(
            coded.format == .activation(.int8g64), "\(coded.format) rows are not int8g64")
        try binder.requireSameShape(plain, coded)
        kernels = KernelTable(binder.kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let share = worker.share(of: plain.rows(step))
        guard !share.isEmpty else { return }
        QuantizeKernel.convert(kernels, plain, coded, share, forward: forward)
    }

    static func convert(
        _ kernels: KernelTable, _ plain: RowView, _ coded: RowView, _ rows: Range<Int>,
        forward: Bool
    ) {
        let codes = coded.base.assumingMemoryBound(to: UInt8.self)
        if forward {
            kernels.pointer.pointee.quantize_int8g64(
                plain.floats, plain.floatStride, plain.columns, codes, coded.stride,
                rows.lowerBound,
                rows.upperBound)
        } else {
            kernels.pointer.pointee.dequantize_int8g64(
                codes, coded.stride, plain.columns, plain.floats, plain.floatStride,
                rows.lowerBound,
                rows.upperBound)
        }
    }
}
