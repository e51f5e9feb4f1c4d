// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

extension ReferenceOperation {
    /// Applies a function to each element.
    func map(_ function: (Float) throws -> Double) throws -> ReferenceValue {
        let x = try operand(0)
        return try result(x.shape, try x.floats().map { Float(try function($0)) })
    }

    /// Combines two values of one shape element by element.
    func combine(_ function: (Float, Float) -> Float) throws -> ReferenceValue {
        let x = try operand(0)
        let y = try operand(1)
        return try result(x.shape, zip(try x.floats(), try y.floats()).map(function))
    }

    /// A nonlinearity by name, in f64.
    func activation() throws -> ReferenceValue {
        let kind = node.attributes["kind"]?.string ?? ""
        return try map { value in
            let x = Double(value)
            switch kind {
            case "silu": return x / (1 + exp(-x))
            case "gelu": return 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
            case "geluTanh":
                return 0.5 * x
                    * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
            case "relu": return x.isNaN ? x : max(x, 0)
            default: throw MartletError(.unsupported, "there is no activation '\(kind)'")
            }
        }
    }

    /// Applies a function to each row, in f64.
    func mapRows(_ function: ([Double]) throws -> [Double]) throws -> ReferenceValue {
        let x = try operand(0)
        let rows = try x.rows().map { try function($0.map { Double($0) }) }
        return try result(x.shape, rows.flatMap { $0.map { Float($0) } })
    }

    /// rms: `x / sqrt(mean(x^2) + epsilon)`; layer: `(x - mean) / sqrt(variance + epsilon)`.
    ///
    /// Then times weight and plus bias, where given.
    func norm() throws -> ReferenceValue {
        let isLayer = node.attributes["kind"]?.string == "layer"
        let epsilon = try number("epsilon")
        let weight = try optional(1)?.floats()
        let bias = try optional(2)?.floats()
        return try mapRows { row in
            let count = Double(row.count)
            let mean = isLayer ? row.reduce(0, +) / count : 0
            let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count
            let factor = 1 / (variance + epsilon).squareRoot()
            return row.indices.map { k in
                (row[k] - mean) * factor * Double(weight?[k] ?? 1) + Double(bias?[k] ?? 0)
            }
        }
    }

    /// `exp(x - max) / sum` of each row.
    func softmax() throws -> ReferenceValue {
        try mapRows { row in
            let largest = row.max() ?? 0
            let powers = row.map { exp($0 - largest) }
            let sum = powers.reduce(0, +)
            return powers.map { $0 / sum }
        }
    }

    /// Each row divided by its Euclidean length; a row of zeros stays.
    func normalizeRows() throws -> ReferenceValue {
        try mapRows { row in
            let length = row.reduce(0) { $0 + $1 * $1 }.squareRoot()
            return length == 0 ? row : row.map { $0 / length }
        }
    }

    /// Mean of each request's rows; a request without rows gives zeros.
    func meanPool(_ step: ReferenceStep) throws -> ReferenceValue {
        let x = try operand(0)
        let rows = try x.rows()
        let pooled = step.ranges.map { range -> [Float] in
            (0..<x.columnCount).map { column in
                let sum = range.reduce(0.0) { $0 + Double(rows[$1][column]) }
                return range.isEmpty ? 0 : Float(sum / Double(range.count))
            }
        }
        return try result([step.ranges.count, x.columnCount], pooled.flatMap { $0 })
    }

    /// The lowest id among the largest logits of each row; NaN counts as less than all.
    func sample() throws -> ReferenceValue {
        let ids = try operand(0).rows().map { row -> Int32 in
            var best = 0
            for (id, value) in row.enumerated() {
                if value > row[best] || (row[best].isNaN && !value.isNaN) { best = id }
            }
            return Int32(truncatingIfNeeded: best)
        }
        return ReferenceValue(.plain(.i32), [ids.count], .integers(ids))
    }
}
