// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Rearrangements; most are views when a plan is made.
    static let shapeOps: [OpDefinition] = [
        OpDefinition("split", "consecutive columns", operands: ["x"], attributes: ["sizes"]) {
            context in
            let x = try context.operand(0)
            let sizes = context.attributes["sizes"]?.ints ?? []
            try context.require(
                !sizes.isEmpty && sizes.allSatisfy { $0 > 0 }
                    && sizes.reduce(Dimension(0)) { $0 + Dimension($1) } == x.shape.last,
                "sizes \(sizes) do not add up to the columns of \(x)")
            return sizes.map { TensorType(x.format, x.shape.dropLast() + [Dimension($0)]) }
        },
        OpDefinition(
            "slice", "columns start ..< start + count", operands: ["x"],
            attributes: ["start", "count"]
        ) { context in
            let x = try context.operand(0)
            let start = try context.int("start"), count = try context.int("count")
            let columns = try context.columns(x)
            try context.require(
                start >= 0 && count > 0 && count <= columns && start <= columns - count,
                "columns \(start) ..< \(start)+\(count) lie outside \(x)")
            return [TensorType(x.format, x.shape.dropLast() + [Dimension(count)])]
        },
        OpDefinition(
            "concat", "rows (axis 0) or columns (axis 1) one after another", operands: ["x"],
            isVariadic: true, attributes: ["axis"]
        ) { context in
            let axis = try context.int("axis")
            var result = try context.operand(0)
            try context.require(axis >= 0 && axis < result.rank, "has no axis \(axis)")
            for index in context.operands.indices.dropFirst() {
                let next = try context.operand(index)
                var joined = next
                if next.rank == result.rank { joined.shape[axis] = result.shape[axis] }
                try context.require(joined == result, "cannot join \(result) and \(next)")
                result.shape[axis] = result.shape[axis] + next.shape[axis]
            }
            return [result]
        },
        OpDefinition(
            "reshape", "the same elements as [rows, columns]", operands: ["x"],
            attributes: ["shape"]
        ) { context in
            let x = try context.operand(0)
            let texts = (context.attributes["shape"]?.string ?? "").split(separator: ",")
            let shape = texts.compactMap { Dimension(String($0)) }
            try context.require(shape.count == texts.count && !shape.isEmpty, "bad 'shape'")
            func volume(_ shape: [Dimension]) -> Dimension? {
                var result = Dimension(1)
                for size in shape {
                    if let number = size.fixed {
                        result = result * number
                    } else if let number = result.fixed {
                        result = size * number
                    } else {
                        return nil
                    }
                }
                return result
            }
            try context.require(
                volume(shape) != nil && volume(shape) == volume(x.shape),
                "\(x) does not have the elements of \(shape)")
            return [TensorType(x.format, shape)]
        },
        OpDefinition("gatherRows", "row rows[o] of x", operands: ["x", "rows"]) { context in
            let x = try context.operand(0), rows = try context.operand(1)
            try context.require(
                x.rank == 2 && rows.rank == 1 && rows.format == .plain(.i32),
                "needs a matrix and i32 rows, not \(x) and \(rows)")
            return [TensorType(x.format, [rows.shape[0], x.shape[1]])]
        },
        OpDefinition(
            "transpose", "columns become rows (parameters)", operands: ["x"]
        ) { context in
            let x = try context.operand(0)
            try context.require(x.rank == 2, "needs a matrix, not \(x)")
            return [TensorType(x.format, [x.shape[1], x.shape[0]])]
        },
    ]
}
