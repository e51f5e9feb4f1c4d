// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

private let activationNumbers: [String: Int] = ["silu": 0, "gelu": 1, "geluTanh": 2, "relu": 3]

extension CUDAFamily {
    /// Ops from rows to rows of the same shape.
    static let rowFamilies: [CUDAFamily] = [
        CUDAFamily(
            "norm_plain", op: "norm",
            decide: { query in
                let columns = try query.operand(0).columns
                let layouts = [
                    nil, try query.vector(1, count: columns), try query.vector(2, count: columns),
                ]
                return try query.rowDecision(inputs: [0], layouts: layouts)
            }, bind: { try bindNorm($0, adds: false) }),
        CUDAFamily(
            "addNorm_plain", op: "addNorm",
            decide: { query in
                let columns = try query.operand(0).columns
                let layouts = [
                    nil, nil, try query.vector(2, count: columns),
                    try query.vector(3, count: columns),
                ]
                return try query.rowDecision(inputs: [0, 1], layouts: layouts)
            }, bind: { try bindNorm($0, adds: true) }),
        CUDAFamily(
            "activation_plain", op: "activation",
            decide: { query in
                try checkKind(query)
                return try query.rowDecision(inputs: [0], work: 16)
            }, bind: { try bindGated($0, hasUp: false) }),
        CUDAFamily(
            "gatedActivation_plain", op: "gatedActivation",
            decide: { query in
                try checkKind(query)
                return try query.rowDecision(inputs: [0, 1], work: 16)
            }, bind: { try bindGated($0, hasUp: true) }),
        pair("add", multiplies: false), pair("mul", multiplies: true),
        unary("scale", kind: 1, factor: "factor"), unary("softCap", kind: 2, factor: "cap"),
        unary("cast", kind: 0, sameTypes: false), unary("reshape", kind: 0),
        unary("softmax", kernel: "softmax_plain"),
        unary("normalizeRows", kernel: "normalize_plain"),
        unary("l2Normalize", kernel: "normalize_plain"),
    ]

    static let rowSource = "plain/rows.cu"

    /// A module of row kernels for a type of operands and of results.
    static func rowModule(_ type: DType, _ result: DType? = nil) -> KernelModule {
        KernelModule(
            rowSource,
            [
                "ACTIVATION": DeviceType.define(type),
                "RESULT": DeviceType.define(result ?? type),
            ])
    }

    /// Blocks by row and 256 columns.
    static func elementGrid(_ rows: Dimension, _ columns: Int) -> KernelLaunch.Grid {
        { (rows.evaluate($0) ?? 0, (columns + 255) / 256, 1) }
    }

    private static func checkKind(_ query: KernelQuery) throws {
        guard let kind = query.attributes["kind"]?.string, activationNumbers[kind] != nil else {
            throw Refusal(
                "there is no kernel for activation '\(query.attributes["kind"]?.string ?? "")'")
        }
        try refuseFormat(query)
    }

    private static func refuseFormat(_ query: KernelQuery) throws {
        if let format = query.attributes["format"]?.string {
            throw Refusal("results in \(format) are not made")
        }
    }

    private static func bindNorm(_ binder: CUDABinder, adds: Bool) throws -> [KernelLaunch] {
        let x = try binder.rows(0)
        let residual = adds ? try binder.rows(1) : nil
        let sum = adds ? try binder.optionalResult(0) : nil
        let y = try binder.result(adds ? 1 : 0)
        for view in [residual, sum, y] { if let view { try binder.requireSame(x, view) } }
        var arguments = binder.arguments()
        arguments.add(x)
        arguments.add(residual)
        arguments.add(sum)
        arguments.add(y)
        let first = adds ? 2 : 1
        arguments.add(try binder.vector(first, count: x.columns))
        arguments.add(try binder.vector(first + 1, count: x.columns))
        arguments.add(rows: x.rows)
        arguments.add(int: x.columns)
        let kind = try binder.word("kind", of: ["rms", "layer"])
        arguments.add(int: kind == "layer" ? 1 : 0)
        arguments.add(Float(try binder.float("epsilon")))
        return [
            KernelLaunch(
                module: rowModule(x.type), kernel: "norm_plain", arguments: arguments, block: 256
            ) { (x.rows.evaluate($0) ?? 0, 1, 1) }
        ]
    }

    private static func bindGated(_ binder: CUDABinder, hasUp: Bool) throws -> [KernelLaunch] {
        let gate = try binder.rows(0)
        let up = hasUp ? try binder.rows(1) : nil
        let y = try binder.result(0)
        if let up { try binder.requireSame(gate, up) }
        try binder.requireSame(gate, y)
        let kind = try binder.word("kind", of: activationNumbers.keys.sorted())
        var arguments = binder.arguments()
        arguments.add(gate)
        arguments.add(up)
        arguments.add(y)
        arguments.add(rows: gate.rows)
        arguments.add(int: gate.columns)
        arguments.add(int: activationNumbers[kind] ?? 0)
        return [
            KernelLaunch(
                module: rowModule(gate.type), kernel: "gated_plain", arguments: arguments,
                block: 256, grid: elementGrid(gate.rows, gate.columns))
        ]
    }

    private static func pair(_ op: String, multiplies: Bool) -> CUDAFamily {
        CUDAFamily(
            "\(op)_plain", op: op,
            decide: { query in
                guard query.isParameter.count > 1, query.isParameter[1] else {
                    return try query.rowDecision(inputs: [0, 1], work: 1)
                }
                let layout = try query.vector(1, count: query.operand(0).columns)
                return try query.rowDecision(inputs: [0], layouts: [nil, layout], work: 1)
            },
            bind: { binder in
                let (a, y) = (try binder.rows(0), try binder.result(0))
                try binder.requireSame(a, y)
                let vector =
                    binder.isParameter(1) ? try binder.vector(1, count: a.columns) : nil
                let b = vector == nil ? try binder.rows(1) : nil
                if let b { try binder.requireSame(a, b) }
                var arguments = binder.arguments()
                arguments.add(a)
                arguments.add(b)
                arguments.add(y)
                arguments.add(vector)
                arguments.add(rows: a.rows)
                arguments.add(int: a.columns)
                arguments.add(int: multiplies ? 1 : 0)
                return [
                    KernelLaunch(
                        module: rowModule(a.type), kernel: "binary_plain", arguments: arguments,
                        block: 256, grid: elementGrid(a.rows, a.columns))
                ]
            })
    }

    private static func unary(
        _ op: String, kernel: String = "unary_plain", kind: Int = 0, factor: String? = nil,
        sameTypes: Bool = true
    ) -> CUDAFamily {
        CUDAFamily(
            "\(op)_plain", op: op,
            decide: { query in
                let x = try query.operand(0)
                guard x.columns == (try query.result()).columns else {
                    throw Refusal("rows change their length from \(x) to \(try query.result())")
                }
                return try query.rowDecision(inputs: [0], sameTypes: sameTypes)
            },
            bind: { binder in
                let (x, y) = (try binder.rows(0), try binder.result(0))
                try binder.require(
                    x.columns == y.columns && x.rows == y.rows
                        && (!sameTypes || x.type == y.type), "operand and result differ")
                let number = try factor.map { Float(try binder.float($0)) } ?? 0
                return [unaryLaunch(binder, kernel, x, y, kind: kind, factor: number)]
            })
    }

    /// A launch of `unary_plain` or another kernel with its arguments.
    static func unaryLaunch(
        _ binder: CUDABinder, _ kernel: String, _ x: DeviceRows, _ y: DeviceRows, kind: Int,
        factor: Float = 0
    ) -> KernelLaunch {
        var arguments = binder.arguments()
        arguments.add(x)
        arguments.add(y)
        arguments.add(rows: y.rows)
        arguments.add(int: y.columns)
        arguments.add(int: kind)
        arguments.add(factor)
        let rows = y.rows
        var grid = elementGrid(rows, y.columns)
        if kernel != "unary_plain" { grid = { (rows.evaluate($0) ?? 0, 1, 1) } }
        return KernelLaunch(
            module: rowModule(x.type, y.type), kernel: kernel, arguments: arguments, block: 256,
            grid: grid)
    }
}
