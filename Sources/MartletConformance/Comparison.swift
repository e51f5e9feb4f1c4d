// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletReference

/// Collects the largest error of a case and the first thing that is wrong.
struct Comparison {
    let tolerance: Double
    /// Numbers below this size are compared as if they were of this size.
    let smallestMagnitude: Double
    private(set) var largestError = 0.0
    private(set) var failure: String?

    init(tolerance: Double, smallestMagnitude: Double) {
        self.tolerance = tolerance
        self.smallestMagnitude = smallestMagnitude
    }

    private mutating func fail(_ reason: String) { if failure == nil { failure = reason } }

    /// Compares rows with what the reference computed.
    mutating func check(
        _ actual: StepDriver.Rows?, _ expected: ReferenceValue, _ name: String
    ) throws {
        guard let actual else { return fail("output '\(name)' is missing") }
        let wanted = try expected.floats()
        let values = actual.flatMap { $0 }
        guard values.count == wanted.count else {
            return fail("output '\(name)' has \(values.count) numbers, not \(wanted.count)")
        }
        let magnitude = wanted.reduce(smallestMagnitude) { max($0, abs(Double($1))) }
        var shifted = 0
        for index in values.indices {
            var error = abs(Double(values[index]) - Double(wanted[index]))
            if values[index].bitPattern == wanted[index].bitPattern { error = 0 }
            error /= max(magnitude, 1e-30)
            if error <= tolerance {
                largestError = max(largestError, error)
                continue
            }
            // A code next to the expected one.
            if let unit = expected.codeUnit(index),
                abs(Double(values[index]) - Double(wanted[index]))
                    <= Double(unit) * 1.001 + tolerance * magnitude
            {
                shifted += 1
                continue
            }
            largestError = error.isNaN ? .infinity : max(largestError, error)
            fail(
                "element \(index) of '\(name)' is \(values[index]), not \(wanted[index])")
        }
        if Double(shifted) > Tolerances.shiftedCodes(within: tolerance) * Double(values.count) {
            fail("\(shifted) of \(values.count) codes differ by one")
        }
    }

    /// Compares rows of steps with those of tokens that ran one by one.
    mutating func checkAlone(
        _ a: [[String: StepDriver.Rows]], _ b: [[String: StepDriver.Rows]], sameBits: Bool
    ) {
        guard !sameBits else { return checkBits(a, b, "tokens one by one") }
        for (x, y) in zip(a, b) {
            for (name, rows) in x {
                let values = rows.joined(), other = (y[name] ?? []).joined()
                let magnitude = values.reduce(smallestMagnitude) { max($0, abs(Double($1))) }
                // Both differ from the reference by the tolerance at most.
                let isClose = zip(values, other).allSatisfy {
                    abs(Double($0) - Double($1)) <= 2 * tolerance * magnitude
                }
                if values.count != other.count || !isClose {
                    fail("tokens one by one: '\(name)' is another")
                }
            }
        }
    }

    /// Compares two runs bit for bit.
    mutating func checkBits(
        _ a: [[String: StepDriver.Rows]], _ b: [[String: StepDriver.Rows]], _ what: String
    ) {
        guard a.count == b.count else { return fail("\(what): other steps") }
        for (x, y) in zip(a, b) {
            for (name, rows) in x {
                let same = y[name].map { other in
                    rows.count == other.count
                        && zip(rows, other).allSatisfy {
                            $0.map(\.bitPattern) == $1.map(\.bitPattern)
                        }
                }
                if same != true { fail("\(what): '\(name)' has other bits") }
            }
        }
    }
}

extension ReferenceValue {
    /// The value of one code step where an element is coded.
    fileprivate func codeUnit(_ index: Int) -> Float? {
        guard case .codes(_, let scales) = elements else { return nil }
        let (row, column) = (index / columnCount, index % columnCount)
        let groupCount = scales.count / max(rowCount, 1)
        return scales[row * groupCount + column / 64]
    }
}
