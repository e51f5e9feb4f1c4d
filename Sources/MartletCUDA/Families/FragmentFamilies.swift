// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `linear` on the tensor cores: `linear_decode` for few rows, one weight layout for all counts.
    static let fragmentLinear = CUDAFamily(
        "linear_mma16x16", op: "linear",
        decide: { query in
            let (x, w, y) = (try query.operand(0), try query.operand(1), try query.result())
            let layout = try fragmentLayout(query, 1, activation: x.format)
            guard x.columns == layout.inputs else {
                throw Refusal("a weight \(w) does not fit an input \(x)")
            }
            let bias = try biasLayout(query, 2, beside: x, count: layout.rows)
            let rowBytes = try query.rowBytes(x) + query.rowBytes(y)
            let cost = KernelCost(
                bytes: Dimension(layout.byteCount)
                    + x.rows * (layout.byteCount / FragmentLinear.decodeLaunchRows + rowBytes),
                operations: x.rows * (2 * layout.rows * layout.inputs),
                operationsPerSecond: 400e12)
            return (cost, [nil, layout.name, bias])
        },
        bind: bindFragments)

    /// `embedding` from a table that the head shares.
    static let fragmentEmbedding = CUDAFamily(
        "embedding_mma16x16", op: "embedding",
        decide: { query in
            let y = try query.result()
            let layout = try fragmentLayout(query, 0, activation: y.format)
            guard layout.inputs == y.columns else { throw Refusal("the table does not fit \(y)") }
            let cost = KernelCost(
                bytes: y.rows * (2 * (try query.rowBytes(y))), operations: 0,
                operationsPerSecond: CUDACatalog.plainRate)
            return (cost, [layout.name, nil])
        }, bind: bindEmbedding)

    /// The layout of a bias, which has the rows' type.
    static func biasLayout(
        _ query: KernelQuery, _ index: Int, beside x: TensorType, count: Int
    ) throws -> String? {
        if let bias = query.optional(index), bias.format != x.format {
            throw Refusal("a bias of \(bias.format) beside rows of \(x.format)")
        }
        return try query.vector(index, count: count)
    }

    /// The layout of a weight beside rows of a type.
    static func fragmentLayout(
        _ query: KernelQuery, _ index: Int, activation: ElementFormat, isPaired: Bool = false
    ) throws -> FragmentLayout {
        try query.requireParameter(index)
        let w = try query.operand(index)
        guard activation == .plain(.f16) || activation == .plain(.bf16) else {
            throw Refusal("the tensor cores' kernels take f16 and bf16, not \(activation)")
        }
        guard w.format.scheme != nil || w.format == activation else {
            throw Refusal("a weight of \(w.format) beside rows of \(activation)")
        }
        return try FragmentLayout(
            FragmentLayout.name(for: w.format, isPaired: isPaired), w.format, w.fixedShape ?? [])
    }
}
