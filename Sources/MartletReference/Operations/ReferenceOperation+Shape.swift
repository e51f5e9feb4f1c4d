// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension ReferenceOperation {
    /// Consecutive columns of the given sizes.
    func split() throws -> [ReferenceValue] {
        var start = 0
        return try (node.attributes["sizes"]?.ints ?? []).map { size in
            defer { start += size }
            return try columns(start, size)
        }
    }

    /// Columns start ..< start + count.
    func slice() throws -> ReferenceValue { try columns(try int("start"), try int("count")) }

    private func columns(_ start: Int, _ count: Int) throws -> ReferenceValue {
        let x = try operand(0)
        if case .codes = x.elements {
            throw MartletError(.unsupported, "columns of \(x.format) cannot be cut")
        }
        let picked = try x.rows().flatMap { $0[start..<start + count] }
        return try rearranged(x, x.shape.dropLast() + [count], picked)
    }

    /// Rows (axis 0) or columns (the last axis) one after another.
    func concat() throws -> ReferenceValue {
        let parts = try operands.indices.map { try operand($0) }
        let first = try operand(0)
        let axis = try int("axis")
        var shape = first.shape
        guard shape.indices.contains(axis), axis == 0 || axis == shape.count - 1 else {
            throw MartletError(.unsupported, "concat along axis \(axis) of \(shape)")
        }
        shape[axis] = parts.reduce(0) { $0 + $1.shape[axis] }
        if axis == 0 { return try rearranged(first, shape, try parts.flatMap { try $0.floats() }) }
        let rows = try parts.map { try $0.rows() }
        return try rearranged(
            first, shape, (0..<first.rowCount).flatMap { row in rows.flatMap { $0[row] } })
    }

    /// The same elements in another shape.
    func reshape(_ step: ReferenceStep) throws -> ReferenceValue {
        let x = try operand(0)
        let shape = try node.results[0].shape.map { try step.size($0) }
        guard shape.reduce(1, *) == x.shape.reduce(1, *) else {
            throw MartletError(.shapeMismatch, "shape \(x.shape) cannot become \(shape)")
        }
        return try rearranged(x, shape, try x.floats())
    }

    /// Columns become rows.
    func transpose() throws -> ReferenceValue {
        let x = try operand(0)
        let values = try x.floats()
        let (rows, columns) = (x.rowCount, x.columnCount)
        let turned = (0..<columns).flatMap { column in
            (0..<rows).map { values[$0 * columns + column] }
        }
        return try rearranged(x, [columns, rows], turned)
    }

    /// Elements moved, not changed: they keep their format, which may be a decoded weight's.
    private func rearranged(
        _ x: ReferenceValue, _ shape: [Int], _ values: [Float]
    ) throws -> ReferenceValue {
        switch x.elements {
        case .floats: return ReferenceValue(x.format, shape, .floats(values))
        case .integers, .codes, .cache:
            throw MartletError(.unsupported, "\(x.format) cannot be rearranged")
        }
    }

    /// The nearest numbers of another dtype; codes are decoded.
    func cast() throws -> ReferenceValue {
        let x = try operand(0)
        if node.results[0].format == x.format { return x }
        return try result(x.shape, try x.floats())
    }

    /// Codes and scales of the rows.
    func quantize() throws -> ReferenceValue {
        let x = try operand(0)
        guard node.results[0].format == .activation(.int8g64) else {
            throw MartletError(
                .unsupported, "the reference does not quantize to \(node.results[0].format)")
        }
        let (codes, scales) = GroupedCodes.encode(try x.floats(), columns: x.columnCount)
        return ReferenceValue(.activation(.int8g64), x.shape, .codes(codes, scales: scales))
    }

    /// One rank's columns are all columns.
    func gatherOneRank() throws -> ReferenceValue {
        guard try int("rankCount") == 1 else {
            throw MartletError(.unsupported, "the reference is a single rank")
        }
        return try operand(0)
    }
}
