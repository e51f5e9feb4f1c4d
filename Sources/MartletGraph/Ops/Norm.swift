// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Normalization of rows.
    static let normOps: [OpDefinition] = [
        OpDefinition(
            "norm", "rows scaled to unit root mean square (rms) or unit variance (layer)",
            operands: ["x", "weight?", "bias?"], attributes: ["kind", "epsilon"],
            optionalAttributes: ["format"], decompose: unquantized
        ) { context in
            let x = try context.operand(0)
            try checkNorm(context, x, first: 1)
            return [TensorType(try context.quantizedFormat(try plain(context, x)), x.shape)]
        },
        OpDefinition(
            "addNorm", "sum = x + y, and norm(sum)", operands: ["x", "y", "weight?", "bias?"],
            attributes: ["kind", "epsilon"], optionalAttributes: ["format"],
            decompose: { node, graph in
                let sum = try graph.insert(
                    "add", [node.operands[0], node.operands[1]], path: node.path, before: node.id)[
                        0]
                let normed = try graph.insert(
                    "norm", [sum] + node.operands.dropFirst(2), node.attributes, path: node.path,
                    before: node.id)[0]
                return [sum, normed]
            }
        ) { context in
            let x = try context.operand(0), y = try context.operand(1)
            try context.require(x == y, "adds equal types, not \(x) and \(y)")
            try checkNorm(context, x, first: 2)
            return [x, TensorType(try context.quantizedFormat(try plain(context, x)), x.shape)]
        },
    ]

    private static func plain(_ context: OpContext, _ x: TensorType) throws -> DType {
        guard let type = x.format.dtype else {
            throw context.failure("needs plain numbers, not \(x)")
        }
        return type
    }

    private static func checkNorm(_ context: OpContext, _ x: TensorType, first: Int) throws {
        _ = try context.word("kind", of: ["rms", "layer"])
        try context.require(context.attributes["epsilon"]?.float != nil, "needs a number 'epsilon'")
        guard let columns = x.shape.last else { throw context.failure("\(x) has no rows") }
        for index in [first, first + 1] {
            if let vector = context.optional(index) {
                try context.require(
                    vector.shape == [columns], "needs a vector of \(columns) numbers, not \(vector)"
                )
            }
        }
    }

    /// Decomposition of an op with attribute `format`: the plain op, then `quantize`.
    @Sendable
    static func unquantized(_ node: Node, _ graph: inout Graph) throws -> [ValueID] {
        var attributes = node.attributes
        guard let format = attributes.removeValue(forKey: "format") else { return [] }
        let plain = try graph.insert(
            node.op, node.operands, attributes, path: node.path, before: node.id)[0]
        return try graph.insert(
            "quantize", [plain], ["format": format], path: node.path, before: node.id)
    }
}
