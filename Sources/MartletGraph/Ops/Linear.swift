// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Products with weights and look-ups in them.
    static let linearOps: [OpDefinition] = [
        OpDefinition(
            "embedding", "row ids[t] of table", operands: ["table", "ids"],
            optionalAttributes: ["dtype"]
        ) { context in
            let table = try context.operand(0), ids = try context.operand(1)
            try context.require(
                table.rank == 2 && ids.rank == 1 && ids.format == .plain(.i32),
                "needs a [V, H] table and i32 ids, not \(table) and \(ids)")
            return [
                TensorType(try context.resultType(table), [ids.shape[0], table.shape[1]])
            ]
        },
        OpDefinition(
            "linear", "x * transpose(w) + bias", operands: ["x", "w", "bias?"],
            optionalAttributes: ["dtype"]
        ) { context in
            let x = try context.operand(0), w = try context.operand(1)
            try context.require(
                x.rank == 2 && w.rank == 2 && x.shape[1] == w.shape[1],
                "needs x [R, K] and w [N, K], not \(x) and \(w)")
            if let bias = context.optional(2) {
                try context.require(
                    bias.shape == [w.shape[0]], "needs a bias of \(w.shape[0]) numbers, not \(bias)"
                )
            }
            return [TensorType(try context.resultType(x), [x.shape[0], w.shape[0]])]
        },
    ]
}
