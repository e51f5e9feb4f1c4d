// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Operations of Python's `str`, each keeping the origin of what it copies.
extension JinjaText {
    /// Without characters of a set (whitespace if nil) at the ends asked for.
    func stripped(_ set: JinjaText? = nil, left: Bool = true, right: Bool = true) -> JinjaText {
        func isStripped(_ scalar: Unicode.Scalar) -> Bool {
            if let set { return set.scalars.contains(scalar) }
            return scalar.isPythonSpace
        }
        var start = 0
        var end = count
        while left, start < end, isStripped(scalars[start]) { start += 1 }
        while right, start < end, isStripped(scalars[end - 1]) { end -= 1 }
        return start == 0 && end == count ? self : slice(start..<end)
    }

    func hasPrefix(_ other: JinjaText, at index: Int = 0) -> Bool {
        guard index >= 0, other.count <= count - index else { return false }
        for offset in 0..<other.count where scalars[index + offset] != other.scalars[offset] {
            return false
        }
        return true
    }

    func hasSuffix(_ other: JinjaText) -> Bool { hasPrefix(other, at: count - other.count) }

    /// Index of the first occurrence at or after a position.
    func find(_ other: JinjaText, from start: Int = 0) -> Int? {
        guard start >= 0, other.count <= count - start else { return nil }
        for index in start...(count - other.count) where hasPrefix(other, at: index) {
            return index
        }
        return nil
    }

    func findLast(_ other: JinjaText) -> Int? {
        guard other.count <= count else { return nil }
        return (0...(count - other.count)).reversed().first { hasPrefix(other, at: $0) }
    }

    /// Parts between occurrences of a separator (not empty), at most `limit` cuts.
    func split(_ separator: JinjaText, limit: Int = .max) -> [JinjaText] {
        var parts: [JinjaText] = []
        var position = 0
        while parts.count < limit, let found = find(separator, from: position) {
            parts.append(slice(position..<found))
            position = found + separator.count
        }
        parts.append(slice(position..<count))
        return parts
    }

    func splitFromRight(_ separator: JinjaText, limit: Int) -> [JinjaText] {
        var parts: [JinjaText] = []
        var rest = self
        while parts.count < limit, let found = rest.findLast(separator) {
            parts.insert(rest.slice(found + separator.count..<rest.count), at: 0)
            rest = rest.slice(0..<found)
        }
        return [rest] + parts
    }

    /// Words between runs of whitespace, at most `limit` cuts.
    func splitAtWhitespace(limit: Int = .max) -> [JinjaText] {
        var parts: [JinjaText] = []
        var position = 0
        while true {
            while position < count, scalars[position].isPythonSpace { position += 1 }
            if position == count { return parts }
            if parts.count == limit {
                parts.append(slice(position..<count))
                return parts
            }
            let start = position
            while position < count, !scalars[position].isPythonSpace { position += 1 }
            parts.append(slice(start..<position))
        }
    }

    /// Lines without their ends, as `str.splitlines`.
    func lines(keepEnds: Bool = false) -> [JinjaText] {
        var lines: [JinjaText] = []
        var start = 0
        var position = 0
        while position < count {
            let value = scalars[position].value
            let isEnd =
                (0x0A...0x0D).contains(value) || (0x1C...0x1E).contains(value) || value == 0x85
                || value == 0x2028 || value == 0x2029
            position += 1
            if !isEnd { continue }
            let end = position - 1
            if value == 0x0D, position < count, scalars[position].value == 0x0A { position += 1 }
            lines.append(slice(start..<(keepEnds ? position : end)))
            start = position
        }
        if start < count { lines.append(slice(start..<count)) }
        return lines
    }

    /// All (or the first `limit`) occurrences replaced.
    func replacing(_ old: JinjaText, with new: JinjaText, limit: Int = .max) -> JinjaText {
        var result = JinjaText()
        if old.isEmpty {
            for index in 0...count {
                if index < limit { result.append(new) }
                if index < count { result.append(slice(index..<index + 1)) }
            }
            return result
        }
        for (index, part) in split(old, limit: limit).enumerated() {
            if index > 0 { result.append(new) }
            result.append(part)
        }
        return result
    }

    func joined(_ parts: [JinjaText]) -> JinjaText {
        var result = JinjaText()
        for (index, part) in parts.enumerated() {
            if index > 0 { result.append(self) }
            result.append(part)
        }
        return result
    }
}
