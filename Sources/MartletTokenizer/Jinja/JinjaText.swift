// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A string of a template: code points as in Python, and which of them came from outside.
struct JinjaText: Sendable {
    /// Code points.
    private(set) var scalars: [Unicode.Scalar] = []
    /// Disjoint, ascending index ranges that came from outside.
    private(set) var untrusted: [Range<Int>] = []

    init() {}

    /// Text of one origin.
    init(_ text: String, isUntrusted: Bool = false) {
        self.init(Array(text.unicodeScalars), isUntrusted: isUntrusted)
    }

    /// Text of one origin.
    init(_ scalars: [Unicode.Scalar], isUntrusted: Bool = false) {
        self.scalars = scalars
        if isUntrusted, !scalars.isEmpty { untrusted = [0..<scalars.count] }
    }

    var count: Int { scalars.count }
    var isEmpty: Bool { scalars.isEmpty }

    /// The text without the knowledge of its origin.
    var string: String { string(0..<count) }

    private func string(_ range: Range<Int>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars[range])
        return String(view)
    }

    /// Place of the first range from outside that ends behind an index.
    private func firstUntrusted(endingBehind index: Int) -> Int {
        var (low, high) = (0, untrusted.count)
        while low < high {
            let middle = (low + high) / 2
            if untrusted[middle].upperBound > index { high = middle } else { low = middle + 1 }
        }
        return low
    }

    func isUntrusted(at index: Int) -> Bool {
        let place = firstUntrusted(endingBehind: index)
        return place < untrusted.count && untrusted[place].lowerBound <= index
    }

    /// From the last code point to the first.
    var reversed: JinjaText {
        var result = JinjaText(scalars.reversed())
        result.untrusted = untrusted.reversed().map {
            count - $0.upperBound..<count - $0.lowerBound
        }
        return result
    }

    mutating func append(_ other: JinjaText) {
        let base = scalars.count
        scalars.append(contentsOf: other.scalars)
        for range in other.untrusted { mark(range.lowerBound + base..<range.upperBound + base) }
    }

    mutating func append(_ text: String) { scalars.append(contentsOf: text.unicodeScalars) }

    mutating func append(_ scalar: Unicode.Scalar, isUntrusted: Bool) {
        scalars.append(scalar)
        if isUntrusted { mark(scalars.count - 1..<scalars.count) }
    }

    /// A part; the range must lie inside.
    func slice(_ range: Range<Int>) -> JinjaText {
        var result = JinjaText()
        result.scalars = Array(scalars[range])
        for part in untrusted[firstUntrusted(endingBehind: range.lowerBound)...] {
            if part.lowerBound >= range.upperBound { break }
            let common = part.clamped(to: range)
            result.mark(
                common.lowerBound - range.lowerBound..<common.upperBound - range.lowerBound)
        }
        return result
    }

    private mutating func mark(_ range: Range<Int>) {
        if let last = untrusted.last, last.upperBound == range.lowerBound {
            untrusted[untrusted.count - 1] = last.lowerBound..<range.upperBound
        } else if !range.isEmpty {
            untrusted.append(range)
        }
    }

    /// Each code point through a mapping, which keeps its origin.
    func mapped(_ transform: (Unicode.Scalar) -> String) -> JinjaText {
        var result = JinjaText()
        for (index, scalar) in scalars.enumerated() {
            let isForeign = !untrusted.isEmpty && isUntrusted(at: index)
            for next in transform(scalar).unicodeScalars {
                result.append(next, isUntrusted: isForeign)
            }
        }
        return result
    }

    /// The text as parts of one origin each.
    var segments: [TextSegment] {
        var result: [TextSegment] = []
        var position = 0
        for range in untrusted + [count..<count] {
            if position < range.lowerBound {
                result.append(
                    TextSegment(string(position..<range.lowerBound), isTrusted: true))
            }
            if !range.isEmpty { result.append(TextSegment(string(range), isTrusted: false)) }
            position = range.upperBound
        }
        return result
    }
}

extension JinjaText: Hashable {
    static func == (a: JinjaText, b: JinjaText) -> Bool { a.scalars == b.scalars }
    func hash(into hasher: inout Hasher) { hasher.combine(scalars) }
    static func < (a: JinjaText, b: JinjaText) -> Bool {
        a.scalars.lexicographicallyPrecedes(b.scalars)
    }
}

extension Unicode.Scalar {
    /// Python's `str.isspace`: White_Space and the four information separators.
    var isPythonSpace: Bool {
        (0x1C...0x1F).contains(value) || UnicodeClasses.shared(value).contains(.whitespace)
    }
}
