// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// What leaves the graph.
    static let outputOps: [OpDefinition] = [
        OpDefinition(
            "sample", "the next token of each row, by the step's sampling parameters",
            operands: ["logits"], isPure: false
        ) { context in
            let logits = try context.operand(0)
            try context.require(logits.rank == 2, "needs a matrix of logits, not \(logits)")
            return [TensorType(.i32, [logits.shape[0]])]
        },
        OpDefinition("meanPool", "mean of each request's rows", operands: ["x"]) { context in
            let x = try context.operand(0)
            try context.require(x.rank == 2 && x.shape[0] == .T, "needs rows of tokens, not \(x)")
            return [TensorType(x.format, [.B, x.shape[1]])]
        },
        OpDefinition("l2Normalize", "rows divided by their Euclidean length", operands: ["x"]) {
            [try $0.operand(0)]
        },
    ]

    /// Exchanges between devices; no backend has them yet.
    static let collectiveOps: [OpDefinition] = [
        OpDefinition("allReduce", "sum over ranks", operands: ["x"]) { [try $0.operand(0)] },
        OpDefinition(
            "allGather", "columns of all ranks side by side", operands: ["x"],
            attributes: ["rankCount"]
        ) { context in
            let x = try context.operand(0)
            let columns = Dimension(try context.columns(x)) * (try context.int("rankCount"))
            return [TensorType(x.format, x.shape.dropLast() + [columns])]
        },
    ]
}
