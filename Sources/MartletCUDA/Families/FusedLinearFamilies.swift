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
            }, bind: bindFragments),
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
            }, bind: bindFragments),
        CUDAFamily(
            "normGatedLinear_mma16x16", op: "normGatedLinear",
            decide: { query in
                let x = try query.operand(0)
                guard FragmentLinear.gateNumber(query.attributes["kind"]) != nil else {
                    throw Refusal("gates are silu and geluTanh")
                }
                let gamma = try query.vector(1, count: x.columns)
                let layout = try fragmentLayout(
                    query, 2, activation: x.format, isPaired: true)
                return (
                    try fragmentCost(query, layout, x), [nil, gamma, layout.name]
                )
            }, bind: bindFragments),
    ]

    private static func fragmentCost(
        _ query: KernelQuery, _ layout: FragmentLayout, _ x: TensorType
    ) throws -> KernelCost {
        let rowBytes = try query.rowBytes(x) + query.rowBytes(query.result())
        return KernelCost(
            bytes: Dimension(layout.byteCount)
                + x.rows * (layout.byteCount / FragmentLinear.decodeLaunchRows + rowBytes),
            operations: x.rows * (2 * layout.rows * layout.inputs), operationsPerSecond: 400e12)
    }

    /// Launches of a step that is a linear with something before or after it.
    @Sendable
    static func bindFragments(_ binder: CUDABinder) throws -> [KernelLaunch] {
        guard var linear = try FragmentLinear(binder) else {
            throw Refusal("'\(binder.planStep.family)' is no linear")
        }
        linear.shared = try linear.sharedNorm(binder)
        return try linear.launches(binder)
    }
}
