// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Activation functions by name.
let activationKinds = ["silu", "gelu", "geluTanh", "relu"]

extension OpSet {
    /// Ops on single elements.
    static let elementwiseOps: [OpDefinition] = [
        OpDefinition(
            "activation", "a nonlinearity", operands: ["x"], attributes: ["kind"],
            optionalAttributes: ["format"], decompose: unquantized
        ) { context in
            _ = try context.word("kind", of: activationKinds)
            let x = try context.operand(0)
            return [TensorType(try context.quantizedFormat(x.format.dtype ?? .f32), x.shape)]
        },
        OpDefinition(
            "gatedActivation", "activation(gate) * up", operands: ["gate", "up"],
            attributes: ["kind"], optionalAttributes: ["format"],
            decompose: { node, graph in
                var attributes = node.attributes
                let format = attributes.removeValue(forKey: "format")
                let active = try graph.insert(
                    "activation", [node.operands[0]], attributes, path: node.path, before: node.id)[
                        0]
                let product = try graph.insert(
                    "mul", [active, node.operands[1]], path: node.path, before: node.id)
                guard let format else { return product }
                return try graph.insert(
                    "quantize", [product[0]], ["format": format], path: node.path, before: node.id)
            }
        ) { context in
            _ = try context.word("kind", of: activationKinds)
            let x = try same(context)[0]
            return [TensorType(try context.quantizedFormat(x.format.dtype ?? .f32), x.shape)]
        },
        OpDefinition("add", "x + y", operands: ["x", "y"], infer: same),
        OpDefinition("mul", "x * y", operands: ["x", "y"], infer: same),
        OpDefinition("scale", "x * factor", operands: ["x"], attributes: ["factor"]) {
            [try $0.operand(0)]
        },
        OpDefinition("softCap", "cap * tanh(x / cap)", operands: ["x"], attributes: ["cap"]) {
            [try $0.operand(0)]
        },
    ]

    @Sendable
    private static func same(_ context: OpContext) throws -> [TensorType] {
        let x = try context.operand(0), y = try context.operand(1)
        try context.require(
            x == y && x.format.dtype != nil, "needs plain numbers of one type, not \(x) and \(y)")
        return [x]
    }
}
