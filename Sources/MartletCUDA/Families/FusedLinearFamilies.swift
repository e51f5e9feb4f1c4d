// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// Linears with the norm before and the addition or gate after them, on the tensor cores.
    static let fusedLinearFamilies = [
        CUDAFamily(
            "linearAdd_mma16x16", op: "linearAdd",
            decide: { query in
                let (x, residual) = (try query.operand(0), try query.operand(2))
                guard residual.format == x.format else {
                    throw Refusal("\(residual.format) beside rows of \(x.format)")
                }
                if query.optional(3) != nil { throw Refusal("a bias is added by itself") }
                let layout = try fragmentLayout(query, 1, activation: x.format)
                return (
                    try fragmentCost(query, layout, x), [nil, FragmentLayout.name, nil, nil]
                )
            }, bind: bindLinearAdd),
        CUDAFamily(
            "normLinear_mma16x16", op: "normLinear",
            decide: { query in
                let x = try query.operand(0)
                if query.optional(3) != nil { throw Refusal("a bias is added by itself") }
                let gamma = try query.vector(1, count: x.columns)
                let layout = try fragmentLayout(query, 2, activation: x.format)
                return (
                    try fragmentCost(query, layout, x), [nil, gamma, FragmentLayout.name, nil]
                )
            }, bind: bindNormLinear),
        CUDAFamily(
            "normGatedLinear_mma16x16", op: "normGatedLinear",
            decide: { query in
                let x = try query.operand(0)
                guard gateNumber(query.attributes["kind"]) != nil else {
                    throw Refusal("gates are silu and geluTanh")
                }
                let gamma = try query.vector(1, count: x.columns)
                let layout = try fragmentLayout(
                    query, 2, activation: x.format, name: FragmentLayout.pairedName)
                return (
                    try fragmentCost(query, layout, x), [nil, gamma, FragmentLayout.pairedName]
                )
            }, bind: bindNormGatedLinear),
    ]

    private static func gateNumber(_ kind: AttributeValue?) -> Int? {
        switch kind?.string {
        case "silu": 1
        case "geluTanh": 2
        default: nil
        }
    }

    private static func fragmentCost(
        _ query: KernelQuery, _ layout: FragmentLayout, _ x: TensorType
    ) throws -> KernelCost {
        let rowBytes = try query.rowBytes(x) + query.rowBytes(query.result())
        return KernelCost(
            bytes: Dimension(layout.byteCount)
                + x.rows * (layout.byteCount / DecodeLinear.mostRows + rowBytes),
            operations: x.rows * (2 * layout.rows * layout.inputs), operationsPerSecond: 400e12)
    }

    /// The launches, left out where few rows run on the tensor cores.
    private static func above(_ launches: [KernelLaunch], _ rows: Dimension) -> [KernelLaunch] {
        launches.map { launch in
            var copy = launch
            let grid = launch.grid
            copy.grid = { values in
                (rows.evaluate(values) ?? 0) > DecodeLinear.rowLimit ? grid(values) : (0, 0, 0)
            }
            return copy
        }
    }

    @Sendable
    private static func bindLinearAdd(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, residual, y) = (try binder.rows(0), try binder.rows(2), try binder.result(0))
        try binder.requireSame(residual, y)
        let weight = try binder.plainWeight(1)
        var decode = DecodeLinear(layout: try binder.fragments(1), weight: weight, x: x, y: y)
        decode.residual = residual
        var arguments = binder.arguments()
        arguments.add(y)
        arguments.add(residual)
        arguments.add(y)
        arguments.add(DeviceVector?.none)
        arguments.add(rows: y.rows)
        arguments.add(int: y.columns)
        arguments.add(int: 0)
        let sum = KernelLaunch(
            module: rowModule(y.type), kernel: "binary_plain", arguments: arguments, block: 256,
            grid: elementGrid(y.rows, y.columns))
        return try decode.launches(binder)
            + above([try plainLaunch(binder, x, y, weight), sum], y.rows)
    }

    /// x normalized into scratch rows.
    private static func normalized(
        _ binder: CUDABinder, _ x: DeviceRows, _ gamma: DeviceVector, _ epsilon: Float
    ) throws -> (rows: DeviceRows, launch: KernelLaunch) {
        let scratch = try scratchRows(binder, x, columns: x.columns, for: "normalized rows")
        var arguments = binder.arguments()
        arguments.add(x)
        arguments.add(DeviceRows?.none)
        arguments.add(DeviceRows?.none)
        arguments.add(scratch)
        arguments.add(gamma)
        arguments.add(DeviceVector?.none)
        arguments.add(rows: x.rows)
        arguments.add(int: x.columns)
        arguments.add(int: 0)
        arguments.add(epsilon)
        let rows = x.rows
        return (
            scratch,
            KernelLaunch(
                module: rowModule(x.type), kernel: "norm_plain", arguments: arguments, block: 256
            ) { (rows.evaluate($0) ?? 0, 1, 1) }
        )
    }

    private static func scratchRows(
        _ binder: CUDABinder, _ like: DeviceRows, columns: Int, for purpose: String
    ) throws -> DeviceRows {
        let rows = like.rows.evaluate(binder.memory.limits.dimensions) ?? 0
        let stride = (columns + 7) / 8 * 8
        return DeviceRows(
            address: try binder.memory.scratch(
                (rows + 8) * stride * like.type.byteCount, for: purpose), stride: stride,
            columns: columns, rows: like.rows, type: like.type)
    }

    private static func norm(
        _ binder: CUDABinder, _ x: DeviceRows
    ) throws -> (gamma: DeviceVector, epsilon: Float) {
        guard let gamma = try binder.vector(1, count: x.columns) else {
            throw Refusal("operand 1 is missing")
        }
        return (gamma, Float(try binder.float("epsilon")))
    }

    @Sendable
    private static func bindNormLinear(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        _ = try binder.word("kind", of: ["rms"])
        let weight = try binder.plainWeight(2)
        let (gamma, epsilon) = try norm(binder, x)
        var decode = DecodeLinear(layout: try binder.fragments(2), weight: weight, x: x, y: y)
        decode.norm = (try binder.memory.converted(gamma, to: x.type), epsilon)
        let (normed, launch) = try normalized(binder, x, gamma, epsilon)
        return try decode.launches(binder)
            + above([launch, try plainLaunch(binder, normed, y, weight)], x.rows)
    }

    @Sendable
    private static func bindNormGatedLinear(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        _ = try binder.word("norm", of: ["rms"])
        guard let gate = gateNumber(planKind(binder)) else {
            throw Refusal("gates are silu and geluTanh")
        }
        let weight = try binder.plainWeight(2)
        try binder.require(y.columns * 2 == weight.outputs, "the result is not half of the weight")
        let (gamma, epsilon) = try norm(binder, x)
        var decode = DecodeLinear(layout: try binder.fragments(2), weight: weight, x: x, y: y)
        decode.norm = (try binder.memory.converted(gamma, to: x.type), epsilon)
        decode.gated = gate
        let (normed, launch) = try normalized(binder, x, gamma, epsilon)
        let both = try scratchRows(binder, y, columns: weight.outputs, for: "gate and up")
        var arguments = binder.arguments()
        arguments.add(both.columns(from: 0, count: y.columns))
        arguments.add(both.columns(from: y.columns, count: y.columns))
        arguments.add(y)
        arguments.add(rows: y.rows)
        arguments.add(int: y.columns)
        arguments.add(int: gate == 1 ? 0 : 2)
        let product = KernelLaunch(
            module: rowModule(y.type), kernel: "gated_plain", arguments: arguments, block: 256,
            grid: elementGrid(y.rows, y.columns))
        return try decode.launches(binder)
            + above([launch, try plainLaunch(binder, normed, both, weight), product], x.rows)
    }

    private static func planKind(_ binder: CUDABinder) -> AttributeValue? {
        binder.planStep.attributes["kind"]
    }
}
