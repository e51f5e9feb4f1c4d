// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Python's `range`: its numbers are made where they are asked for.
struct JinjaRange {
    let start: Int
    let stop: Int
    let step: Int
    let count: Int

    /// A range; a step of 0 or more numbers than fit are refused.
    init(_ start: Int, _ stop: Int, _ step: Int) throws {
        guard step != 0 else { throw JinjaFailure.error("range() arg 3 must not be zero") }
        let (span, overflow) =
            step > 0
            ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
        let isEmpty = step > 0 ? stop <= start : stop >= start
        let count = isEmpty || overflow ? 0 : (span.magnitude - 1) / step.magnitude + 1
        guard isEmpty || !overflow && count <= JinjaLimits.range else {
            throw JinjaFailure.error(
                "Range too big. The sandbox blocks ranges larger than \(JinjaLimits.range).")
        }
        (self.start, self.stop, self.step, self.count) = (start, stop, step, Int(count))
    }

    /// The number at a place below `count`, or just behind it.
    subscript(index: Int) -> Int { start &+ index &* step }

    var elements: [JinjaValue] { (0..<count).map { .int(self[$0]) } }

    /// `repr(range)`.
    var text: String { "range(\(start), \(stop)\(step == 1 ? "" : ", \(step)"))" }

    /// Whether a number is one of it.
    func contains(_ value: JinjaValue) -> Bool {
        guard let whole = value.integer ?? value.number.flatMap({ Int(exactly: $0) }) else {
            return false
        }
        let (distance, overflow) = whole.subtractingReportingOverflow(start)
        guard count > 0, !overflow, distance == 0 || (distance < 0) == (step < 0) else {
            return false
        }
        let (place, rest) = distance.magnitude.quotientAndRemainder(dividingBy: step.magnitude)
        return rest == 0 && place < count
    }

    /// The same numbers are the same range.
    func equals(_ other: JinjaRange) -> Bool {
        count == other.count
            && (count == 0 || start == other.start && (count == 1 || step == other.step))
    }
}

/// jinja2's `cycler`: gives its items in turn.
final class JinjaCycler {
    let items: [JinjaValue]
    private var index = 0

    init(_ items: [JinjaValue]) { self.items = items }

    var current: JinjaValue { items[index] }

    func next() -> JinjaValue {
        defer { index = (index + 1) % items.count }
        return current
    }

    func reset() { index = 0 }
}

/// jinja2's `joiner`: empty the first time, then its separator.
final class JinjaJoiner {
    private let separator: JinjaValue
    private var isUsed = false

    init(_ separator: JinjaValue) { self.separator = separator }

    func next() -> JinjaValue {
        defer { isUsed = true }
        return isUsed ? separator : .text("")
    }
}
