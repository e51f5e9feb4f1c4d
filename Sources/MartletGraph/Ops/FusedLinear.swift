// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Linears with what stands before and after them, for devices where a pass over memory is dear.
    static let fusedLinearOps: [OpDefinition] = [
        OpDefinition(
            "linearAdd", "residual + (x * transpose(w) + bias)",
            operands: ["x", "w", "residual", "bias?"], optionalAttributes: ["dtype"],
            decompose: { node, graph in
                let bias = node.operands.count > 3 ? node.operands[3] : nil
                let product = try graph.insert(
                    "linear", [node.operands[0], node.operands[1], bias], node.attributes,
                    path: node.path, before: node.id)[0]
                return try graph.insert(
                    "add", [node.operands[2], product], path: node.path, before: node.id)
            }
        ) { context in
            let x = try context.operand(0), w = try context.operand(1)
            let residual = try context.operand(2)
            try checkProduct(context, x, w)
            try checkBias(context, 3, w)
            try context.require(
                residual == TensorType(try context.resultType(x), [x.shape[0], w.shape[0]]),
                "adds rows of the product, not \(residual)")
            return [residual]
        },
        OpDefinition(
            "normLinear", "norm(x) * transpose(w) + bias",
            operands: ["x", "gamma", "w", "bias?"], attributes: ["kind", "epsilon"],
            optionalAttributes: ["dtype"],
            decompose: { node, graph in
                let bias = node.operands.count > 3 ? node.operands[3] : nil
                let normed = try insertNorm(node, node.attributes["kind"], &graph)
                return try graph.insert(
                    "linear", [normed, node.operands[2], bias],
                    node.attributes.filter { $0.key == "dtype" }, path: node.path, before: node.id)
            }
        ) { context in
            let x = try context.operand(0), w = try context.operand(2)
            _ = try context.word("kind", of: ["rms"])
            try checkGamma(context, x)
            try checkProduct(context, x, w)
            try checkBias(context, 3, w)
            return [TensorType(try context.resultType(x), [x.shape[0], w.shape[0]])]
        },
        OpDefinition(
            "normGatedLinear",
            "activation(gate) * up, both of norm(x) * transpose(w); gate rows first",
            operands: ["x", "gamma", "w"], attributes: ["kind", "norm", "epsilon"],
            optionalAttributes: ["dtype"],
            decompose: { node, graph in
                let normed = try insertNorm(node, node.attributes["norm"], &graph)
                let both = try graph.insert(
                    "linear", [normed, node.operands[2]],
                    node.attributes.filter { $0.key == "dtype" }, path: node.path, before: node.id)[
                        0]
                let half = (graph.type(of: both)?.columns ?? 0) / 2
                let parts = try graph.insert(
                    "split", [both], ["sizes": .ints([half, half])], path: node.path,
                    before: node.id)
                return try graph.insert(
                    "gatedActivation", [parts[0], parts[1]],
                    node.attributes.filter { $0.key == "kind" }, path: node.path, before: node.id)
            }
        ) { context in
            let x = try context.operand(0), w = try context.operand(2)
            _ = try context.word("kind", of: ["silu", "gelu", "geluTanh", "relu"])
            _ = try context.word("norm", of: ["rms"])
            try checkGamma(context, x)
            try checkProduct(context, x, w)
            guard let rows = w.shape[0].fixed, rows % 2 == 0 else {
                throw context.failure("needs an even number of rows, not \(w)")
            }
            return [TensorType(try context.resultType(x), [x.shape[0], Dimension(rows / 2)])]
        },
    ]

    private static func insertNorm(
        _ node: Node, _ kind: AttributeValue?, _ graph: inout Graph
    ) throws -> ValueID {
        try graph.insert(
            "norm", [node.operands[0], node.operands[1]],
            ["kind": kind ?? "rms", "epsilon": node.attributes["epsilon"] ?? 0.0],
            path: node.path, before: node.id)[0]
    }

    private static func checkProduct(
        _ context: OpContext, _ x: TensorType, _ w: TensorType
    ) throws {
        try context.require(
            x.rank == 2 && w.rank == 2 && x.shape[1] == w.shape[1],
            "needs x [R, K] and w [N, K], not \(x) and \(w)")
    }

    private static func checkBias(_ context: OpContext, _ index: Int, _ w: TensorType) throws {
        guard let bias = context.optional(index) else { return }
        try context.require(
            bias.shape == [w.shape[0]], "needs a bias of \(w.shape[0]) numbers, not \(bias)")
    }

    private static func checkGamma(_ context: OpContext, _ x: TensorType) throws {
        try context.require(context.attributes["epsilon"]?.float != nil, "needs a number 'epsilon'")
        let gamma = try context.operand(1)
        try context.require(
            x.rank == 2 && gamma.shape == [x.shape[1]], "needs a vector for \(x), not \(gamma)")
    }
}
