// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// Ops that move rows and columns, and means over requests.
    static let shapeFamilies: [CUDAFamily] = [
        CUDAFamily(
            "slice_plain", op: "slice", decide: { try $0.rowDecision(inputs: [0], work: 1) },
            bind: { binder in
                let (x, y) = (try binder.rows(0), try binder.result(0))
                let start = try binder.int("start", in: 0...x.columns)
                try binder.require(
                    y.columns <= x.columns - start && x.rows == y.rows && x.type == y.type,
                    "columns \(start) ..< \(start + y.columns) exceed \(x.columns)")
                return [copy(binder, x.columns(from: start, count: y.columns), y)]
            }),
        CUDAFamily(
            "concat_plain", op: "concat",
            decide: { query in
                guard query.attributes["axis"]?.int == 1 else {
                    throw Refusal("rows are joined at build time only (axis 0)")
                }
                return try query.rowDecision(inputs: Array(query.operands.indices), work: 1)
            },
            bind: { binder in
                _ = try binder.int("axis", in: 1...1)
                let y = try binder.result(0)
                var start = 0
                var launches: [KernelLaunch] = []
                for index in binder.planStep.operands.indices {
                    let x = try binder.rows(index)
                    try binder.require(
                        x.rows == y.rows && x.type == y.type && x.columns <= y.columns - start,
                        "operands exceed the result's \(y.columns) columns")
                    launches.append(copy(binder, x, y.columns(from: start, count: x.columns)))
                    start += x.columns
                }
                try binder.require(
                    start == y.columns, "operands have \(start) columns, not \(y.columns)")
                return launches
            }),
        CUDAFamily(
            "gatherRows_plain", op: "gatherRows",
            decide: { query in
                let (x, y) = (try query.operand(0), try query.result())
                guard x.format == y.format, x.columns == y.columns else {
                    throw Refusal("\(x) and \(y) differ in format or columns")
                }
                let cost = KernelCost(
                    bytes: y.rows * (2 * (try query.rowBytes(y))), operations: 0,
                    operationsPerSecond: CUDACatalog.plainRate)
                return (cost, [nil, nil])
            },
            bind: { binder in
                let (x, y) = (try binder.rows(0), try binder.result(0))
                try binder.requireInput(1, "logitRows")
                try binder.require(
                    x.columns == y.columns && x.type == y.type && x.rows == .T && y.rows == .O,
                    "operand and result differ")
                var arguments = binder.arguments()
                arguments.add(binder.step(.logitRows))
                arguments.add(x)
                arguments.add(y)
                arguments.add(int: y.columns)
                return [
                    KernelLaunch(
                        module: rowModule(x.type), kernel: "gather_plain", arguments: arguments,
                        block: 256, grid: elementGrid(.O, y.columns))
                ]
            }),
        CUDAFamily(
            "meanPool_plain", op: "meanPool",
            decide: { try $0.rowDecision(inputs: [0]) },
            bind: { binder in
                let (x, y) = (try binder.rows(0), try binder.result(0))
                try binder.require(
                    x.columns == y.columns && x.type == y.type && x.rows == .T && y.rows == .B,
                    "operand and result differ")
                var arguments = binder.arguments()
                arguments.add(binder.step(.queryStart))
                arguments.add(x)
                arguments.add(y)
                arguments.add(int: y.columns)
                return [
                    KernelLaunch(
                        module: rowModule(x.type), kernel: "mean_plain", arguments: arguments,
                        block: 256, grid: elementGrid(.B, y.columns))
                ]
            }),
    ]

    private static func copy(
        _ binder: CUDABinder, _ x: DeviceRows, _ y: DeviceRows
    ) -> KernelLaunch { unaryLaunch(binder, "unary_plain", x, y, kind: 0) }
}
