// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `linear` and `embedding` of any weight in any layout, decoded on the fly.
    static let linearFamilies = [
        fragmentLinear, fragmentEmbedding,
        CUDAFamily(
            "linear_plain", op: "linear",
            decide: { query in
                let (x, w, y) = (try query.operand(0), try query.operand(1), try query.result())
                let layouts = [nil, try weightLayout(query, 1), try query.vector(2, count: nil)]
                guard let shape = w.fixedShape, shape.count == 2, shape[1] == x.columns else {
                    throw Refusal("a weight \(w) does not fit an input \(x)")
                }
                let bytes =
                    Dimension(try weightBytes(w))
                    + x.rows * (try query.rowBytes(x) + query.rowBytes(y))
                // A tenth of what the tensor cores' families reach.
                let cost = KernelCost(
                    bytes: bytes * 2, operations: x.rows * (2 * shape[0] * shape[1]),
                    operationsPerSecond: CUDACatalog.plainRate)
                return (cost, layouts)
            }, bind: bindLinear),
        CUDAFamily(
            "embedding_plain", op: "embedding",
            decide: { query in
                let (w, y) = (try query.operand(0), try query.result())
                let layout = try weightLayout(query, 0)
                guard let shape = w.fixedShape, shape.count == 2, shape[1] == y.columns else {
                    throw Refusal("a table \(w) does not fit a result \(y)")
                }
                let cost = KernelCost(
                    bytes: y.rows * (2 * (try query.rowBytes(y))), operations: 0,
                    operationsPerSecond: CUDACatalog.plainRate)
                return (cost, [layout, nil])
            }, bind: bindEmbedding),
    ]

    static func weightLayout(_ query: KernelQuery, _ index: Int) throws -> String {
        try query.requireParameter(index)
        _ = try weightBytes(query.operand(index))
        return RowLayout.name
    }

    static func weightBytes(_ type: TensorType) throws -> Int {
        guard let shape = type.fixedShape, shape.count == 2 else {
            throw Refusal("\(type) is no matrix of fixed shape")
        }
        switch type.format {
        case .plain(let element) where element.isActivation:
            return shape[0] * shape[1] * element.byteCount
        case .weight(let scheme): return try RowLayout.parts(scheme, shape).byteCount
        default: throw Refusal("a weight of \(type.format) has no kernel")
        }
    }

    @Sendable
    private static func bindLinear(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let (x, y) = (try binder.rows(0), try binder.result(0))
        let weight = try binder.plainWeight(1)
        let bias = try binder.vector(2, count: weight.outputs)
        return [try plainLaunch(binder, x, y, weight, bias: bias)]
    }

    /// A launch of the linear that is right for all weights.
    static func plainLaunch(
        _ binder: CUDABinder, _ x: DeviceRows, _ y: DeviceRows, _ weight: PlainWeight,
        bias: DeviceVector? = nil
    ) throws -> KernelLaunch {
        try binder.require(
            x.columns == weight.inputs && y.columns == weight.outputs && x.rows == y.rows,
            "input, weight and result do not fit together")
        var arguments = binder.arguments()
        arguments.add(x)
        arguments.add(y)
        weight.add(to: &arguments)
        arguments.add(bias)
        arguments.add(rows: x.rows)
        var defines = weight.defines
        defines["ACTIVATION"] = DeviceType.define(x.type)
        defines["RESULT"] = DeviceType.define(y.type)
        let outputs = weight.outputs
        return KernelLaunch(
            module: KernelModule("plain/linear.cu", defines), kernel: "linear_plain",
            arguments: arguments, block: 256
        ) { values in
            let rows = x.rows.evaluate(values) ?? 0
            return ((outputs + 7) / 8, (rows + 7) / 8, 1)
        }
    }

    @Sendable
    static func bindEmbedding(_ binder: CUDABinder) throws -> [KernelLaunch] {
        let weight = try binder.plainWeight(0)
        let y = try binder.result(0)
        try binder.requireInput(1, "tokens")
        try binder.require(
            y.columns == weight.inputs && y.rows == .T, "table and result do not fit together")
        binder.limitIds(to: weight.outputs, columns: weight.inputs)
        var arguments = binder.arguments()
        arguments.add(binder.step(.tokenSource))
        arguments.add(binder.memory.results.tokens)
        arguments.add(binder.step(.embeddings))
        arguments.add(y)
        weight.add(to: &arguments)
        var defines = weight.defines
        defines["ACTIVATION"] = DeviceType.define(y.type)
        defines["RESULT"] = DeviceType.define(y.type)
        let columns = y.columns
        return [
            KernelLaunch(
                module: KernelModule("plain/linear.cu", defines), kernel: "embedding_plain",
                arguments: arguments, block: 256
            ) { ($0.tokens, min((columns + 255) / 256, 32), 1) }
        ]
    }
}
