// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Changes of number format, and row statistics.
    static let numericOps: [OpDefinition] = [
        OpDefinition(
            "cast", "the nearest numbers of another dtype", operands: ["x"],
            attributes: ["dtype"]
        ) { context in
            let x = try context.operand(0)
            return [TensorType(try context.dtype("dtype", default: .f32), x.shape)]
        },
        OpDefinition(
            "quantize", "codes and scales of an activation format", operands: ["x"],
            attributes: ["format"]
        ) { context in
            let x = try context.operand(0)
            try context.require(x.format.dtype != nil, "needs plain numbers, not \(x)")
            return [TensorType(try context.quantizedFormat(.f32), x.shape)]
        },
        OpDefinition(
            "dequantize", "plain numbers of codes", operands: ["x"],
            attributes: ["dtype"]
        ) { context in
            let x = try context.operand(0)
            return [TensorType(try context.dtype("dtype", default: .f32), x.shape)]
        },
        OpDefinition("softmax", "exp(x) of a row, scaled to sum 1", operands: ["x"], infer: keep),
        OpDefinition(
            "normalizeRows", "rows divided by their Euclidean length", operands: ["x"],
            infer: keep),
    ]

    @Sendable
    private static func keep(_ context: OpContext) throws -> [TensorType] {
        let x = try context.operand(0)
        try context.require(x.format.dtype != nil, "needs plain numbers, not \(x)")
        return [x]
    }
}
