// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension ReferenceOperation {
    /// Row ids[t] of the table.
    func embedding() throws -> ReferenceValue {
        try rows(of: try operand(0), at: try operand(1).integers(), what: "token id")
    }

    /// Row rows[o] of x.
    func gatherRows() throws -> ReferenceValue {
        let x = try operand(0)
        let rows = try operand(1).integers()
        if case .codes(let codes, let scales) = x.elements {
            let columns = x.columnCount
            let groups = GroupedCodes.groupCount(columns: columns)
            var picked: ([Int8], [Float]) = ([], [])
            for row in rows {
                guard 0..<x.rowCount ~= Int(row) else {
                    throw MartletError(.invalidArgument, "row \(row) of \(x.rowCount)")
                }
                picked.0 += codes[Int(row) * columns..<(Int(row) + 1) * columns]
                picked.1 += scales[Int(row) * groups..<(Int(row) + 1) * groups]
            }
            return ReferenceValue(
                x.format, [rows.count, columns], .codes(picked.0, scales: picked.1))
        }
        return try self.rows(of: x, at: rows, what: "row")
    }

    private func rows(
        of table: ReferenceValue, at ids: [Int32], what: String
    ) throws -> ReferenceValue {
        let values = try table.floats()
        let columns = table.columnCount
        var picked: [Float] = []
        picked.reserveCapacity(ids.count * columns)
        for id in ids {
            guard 0..<table.rowCount ~= Int(id) else {
                throw MartletError(
                    .invalidArgument, "\(what) \(id) lies outside 0 ..< \(table.rowCount)")
            }
            picked += values[Int(id) * columns..<(Int(id) + 1) * columns]
        }
        return try result([ids.count, columns], picked)
    }

    /// `y[r, n] = sum over k of x[r, k] * w[n, k] + bias[n]`, summed in f64 and rounded once.
    func linear() throws -> ReferenceValue {
        let x = try operand(0)
        let w = try operand(1)
        let inputs = try x.floats()
        let weights = try w.floats()
        let bias = try optional(2)?.floats()
        let (rowCount, outputCount, inputCount) = (x.rowCount, w.rowCount, w.columnCount)
        var y = [Float](repeating: 0, count: rowCount * outputCount)
        inputs.withUnsafeBufferPointer { inputs in
            weights.withUnsafeBufferPointer { weights in
                for n in 0..<outputCount {
                    let row = UnsafeBufferPointer(
                        rebasing: weights[n * inputCount..<(n + 1) * inputCount])
                    for r in 0..<rowCount {
                        let sum = Self.dot(
                            UnsafeBufferPointer(
                                rebasing: inputs[r * inputCount..<(r + 1) * inputCount]), row)
                        y[r * outputCount + n] = Float(sum + Double(bias?[n] ?? 0))
                    }
                }
            }
        }
        return try result([rowCount, outputCount], y)
    }

    /// Sum of products in f64, in eight lanes so that it is bearable on whole models.
    static func dot(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
        var lanes = SIMD8<Double>.zero
        let count = min(a.count, b.count)
        let (x, y) = (UnsafeRawBufferPointer(a), UnsafeRawBufferPointer(b))
        var i = 0
        while i + 8 <= count {
            let left = x.loadUnaligned(fromByteOffset: i * 4, as: SIMD8<Float>.self)
            let right = y.loadUnaligned(fromByteOffset: i * 4, as: SIMD8<Float>.self)
            lanes += SIMD8<Double>(left) * SIMD8<Double>(right)
            i += 8
        }
        var sum = lanes.sum()
        while i < count {
            sum += Double(a[i]) * Double(b[i])
            i += 1
        }
        return sum
    }
}
