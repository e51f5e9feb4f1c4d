// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import CMartletMicrokernels
import MartletBackend
import MartletCore
import MartletEngineFile

extension CPUOp {
    /// `add(a, b)`; b may be a parameter vector, added to every row.
    static let add = CPUOp("add", families: [pairFamily("add")]) {
        try ElementwiseKernel(binder: $0, .add)
    }
    /// `mul(a, b)`; b may be a parameter vector, multiplied into every row.
    static let mul = CPUOp("mul", families: [pairFamily("mul")]) {
        try ElementwiseKernel(binder: $0, .multiply)
    }
    /// `scale(x)`: times a constant.
    static let scale = CPUOp("scale", families: [rowFamily("scale")]) {
        try ElementwiseKernel(binder: $0, .scale(Float($0.float("factor"))))
    }
    /// `softCap(x)`: cap * tanh(x / cap).
    static let softCap = CPUOp("softCap", families: [rowFamily("softCap", work: 16)]) {
        let cap = Float(try $0.float("cap"))
        try $0.require(cap > 0, "attribute 'cap' must be positive")
        return try ElementwiseKernel(binder: $0, .softCap(cap))
    }
    /// `softmax(x)` of each row.
    static let softmax = CPUOp("softmax", families: [rowFamily("softmax", work: 16)]) {
        try ElementwiseKernel(binder: $0, .softmax)
    }
    /// `cast(x)`: the conversions around the copy do the work.
    static let cast = CPUOp("cast", families: [rowFamily("cast", work: 1)]) {
        try ElementwiseKernel(binder: $0, .copy)
    }
    /// `normalizeRows(w)`: each row divided by its Euclidean length.
    static let normalizeRows = CPUOp("normalizeRows", families: [rowFamily("normalizeRows")]) {
        try ElementwiseKernel(binder: $0, .normalize)
    }
    /// `l2Normalize(x)`: each row divided by its Euclidean length.
    static let l2Normalize = CPUOp("l2Normalize", families: [rowFamily("l2Normalize")]) {
        try ElementwiseKernel(binder: $0, .normalize)
    }

    /// A family that maps rows to rows of the same shape.
    static func rowFamily(_ op: String, work: Int = 4) -> KernelFamily {
        KernelFamily(op, op: op) { query in
            if query.isParameter.first == true { throw Refusal("the operand is a parameter") }
            return try query.rowDecision(inputs: [0], work: work)
        }
    }

    private static func pairFamily(_ op: String) -> KernelFamily {
        KernelFamily(op, op: op) { query in
            if query.isParameter.first == true { throw Refusal("operand 0 is a parameter") }
            guard query.isParameter.count > 1, query.isParameter[1] else {
                return try query.rowDecision(inputs: [0, 1], work: 1)
            }
            let layout = try query.vector(1, count: query.operand(0).columns)
            return try query.rowDecision(inputs: [0], layouts: [nil, layout], work: 1)
        }
    }
}

/// Row by row work on one or two operands of the same shape.
///
/// `@unchecked Sendable`: holds addresses that never change.
final class ElementwiseKernel: BoundKernel, @unchecked Sendable {
    enum Work {
        case add, multiply, copy, softmax, normalize
        case scale(Float)
        case softCap(Float)

        var isPair: Bool {
            switch self {
            case .add, .multiply: true
            default: false
            }
        }
    }

    private let kernels: KernelTable
    private let work: Work
    private let a: RowView
    /// Row 0 of the second operand, and the floats to its next row (0: one row for all).
    private let b: (base: UnsafePointer<Float>, stride: Int)?
    private let y: RowView

    init(binder: Binder, _ work: Work) throws {
        self.work = work
        a = try binder.input(0)
        y = try binder.output(0)
        try binder.requireSameShape(a, y)
        kernels = KernelTable(binder.kernels)
        guard work.isPair else {
            b = nil
            return
        }
        if binder.has(1), case .parameter = binder.step.operands[1],
            let vector = try binder.vector(1, count: a.columns)
        {
            b = (vector, 0)
        } else {
            let second = try binder.input(1)
            try binder.requireSameShape(a, second)
            b = (UnsafePointer(second.floats), second.floatStride)
        }
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let count = a.columns
        for row in worker.share(of: a.rows(step)) {
            let x = UnsafePointer(a.row(row))
            let y = y.row(row)
            switch work {
            case .add:
                if let b { kernels.pointer.pointee.add(x, b.base + row * b.stride, y, count) }
            case .multiply:
                if let b { kernels.pointer.pointee.multiply(x, b.base + row * b.stride, y, count) }
            case .copy: if x != UnsafePointer(y) { y.update(from: x, count: count) }
            case .softmax: kernels.pointer.pointee.softmax(x, y, count)
            case .scale(let factor): kernels.pointer.pointee.scale(x, factor, y, count)
            case .softCap(let cap): for i in 0..<count { y[i] = cap * tanhf(x[i] / cap) }
            case .normalize:
                var sum = 0.0
                for i in 0..<count { sum += Double(x[i]) * Double(x[i]) }
                // A row of zeros stays zero.
                let factor = sum > 0 || sum.isNaN ? Float(1 / sum.squareRoot()) : 0
                kernels.pointer.pointee.scale(x, factor, y, count)
            }
        }
    }
}
