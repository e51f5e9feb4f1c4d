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
                let layout = try fragmentLayout(query, 1, activation: x.format)
                let bias = try biasLayout(query, 3, beside: x, count: layout.rows)
                return (
                    try fragmentCost(query, layout, x), [nil, layout.name, nil, bias]
                )
            }, bind: bindLinearAdd),
        CUDAFamily(
            "normLinear_mma16x16", op: "normLinear",
            decide: { query in
                let x = try query.operand(0)
                let gamma = try query.vector(1, count: x.columns)
                let layout = try fragmentLayout(query, 2, activation: x.format)
                let bias = try biasLayout(query, 3, beside: x, count: layout.rows)
                return (
                    try fragmentCost(query, layout, x), [nil, gamma, layout.name, bias]
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
                    query, 2, activation: x.format, isPaired: true)
                return (
                    try fragmentCost(query, layout, x), [nil, gamma, layout.name]
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
                + x.rows * (layout.byteCount / FragmentLinear.mostDecodeRows + rowBytes),
            operations: x.rows * (2 * layout.rows * layout.inputs), operationsPerSecond: 400e12)
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
    private static func bindLinearAdd(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (residual, y) = (try binder.rows(2), try binder.result(0))
        try binder.requireSame(residual, y)
        var linear = try FragmentLinear(binder, weight: 1, x: binder.rows(0), y: y)
        linear.residual = residual
        linear.bias = try binder.vector(3, count: linear.weight.outputs)
        return try linear.launches(binder)
    }

    @Sendable
    private static func bindNormLinear(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        _ = try binder.word("kind", of: ["rms"])
        var linear = try FragmentLinear(binder, weight: 2, x: x, y: y)
        linear.norm = try norm(binder, x)
        linear.bias = try binder.vector(3, count: linear.weight.outputs)
        return try linear.launches(binder)
    }

    @Sendable
    private static func bindNormGatedLinear(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        _ = try binder.word("norm", of: ["rms"])
        guard let gate = gateNumber(binder.planStep.attributes["kind"]) else {
            throw Refusal("gates are silu and geluTanh")
        }
        var linear = try FragmentLinear(binder, weight: 2, x: x, y: y)
        try binder.require(
            y.columns * 2 == linear.weight.outputs, "the result is not half of the weight")
        linear.norm = try norm(binder, x)
        linear.gate = gate
        return try linear.launches(binder)
    }
}
