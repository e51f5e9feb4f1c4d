// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds the greatest elements of a row in one pass.
///
/// Runs of elements are compared with the least one listed; hardly any exceeds it once a few runs have
/// been seen, so that the time is that of reading the row.
enum GreatestElements {
    private static let run = 64

    /// Lists the greatest elements, best first, equal ones by rising index; `-infinity` is left out.
    ///
    /// - Parameters:
    ///   - row: Numbers, none of them NaN.
    ///   - count: How many to list.
    ///   - top: Becomes indices with their elements.
    static func list(
        _ row: UnsafeBufferPointer<Float>, count: Int, into top: inout [TokenLogProbability]
    ) {
        top.removeAll(keepingCapacity: true)
        guard count > 0, let base = row.baseAddress else { return }
        var least = -Float.infinity
        for first in stride(from: 0, to: row.count, by: run) {
            let end = min(first + run, row.count)
            if end - first == run, greatestOfRun(base + first) <= least { continue }
            for index in first..<end where base[index] > least {
                if top.count == count { top.removeLast() }
                insert(index, base[index], into: &top)
                if top.count == count { least = top[count - 1].logProbability }
            }
        }
    }

    private static func insert(
        _ index: Int, _ value: Float, into top: inout [TokenLogProbability]
    ) {
        var place = top.count
        while place > 0, top[place - 1].logProbability < value { place -= 1 }
        top.insert(
            TokenLogProbability(token: Int32(truncatingIfNeeded: index), logProbability: value),
            at: place)
    }

    @inline(__always)
    private static func greatestOfRun(_ base: UnsafePointer<Float>) -> Float {
        var greatest = UnsafeRawPointer(base).loadUnaligned(as: SIMD16<Float>.self)
        for first in stride(from: 16, to: run, by: 16) {
            let x = UnsafeRawPointer(base + first).loadUnaligned(as: SIMD16<Float>.self)
            greatest.replace(with: x, where: x .> greatest)
        }
        return greatest.max()
    }
}
