// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Operations of Python's `str`, each keeping the origin of what it copies.
extension JinjaText {
    /// Without characters of a set (whitespace if nil) at the ends asked for.
    func stripped(_ set: JinjaText? = nil, left: Bool = true, right: Bool = true) -> JinjaText {
        let members = set.map { Set($0.scalars) }
        func isStripped(_ scalar: Unicode.Scalar) -> Bool {
            members?.contains(scalar) ?? scalar.isPythonSpace
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

    /// Index of the first occurrence at or after a position, in time that grows with the text alone.
    func find(_ other: JinjaText, from start: Int = 0) -> Int? {
        guard start >= 0, other.count <= count - start else { return nil }
        if other.count <= 8 {
            for index in start...(count - other.count) where hasPrefix(other, at: index) {
                return index
            }
            return nil
        }
        // Knuth, Morris, Pratt: borders[i] is the longest proper border of the first i + 1 characters.
        let pattern = other.scalars
        var borders = [Int](repeating: 0, count: pattern.count)
        var matched = 0
        for index in 1..<pattern.count {
            while matched > 0, pattern[index] != pattern[matched] { matched = borders[matched - 1] }
            if pattern[index] == pattern[matched] { matched += 1 }
            borders[index] = matched
        }
        matched = 0
        for index in start..<count {
            while matched > 0, scalars[index] != pattern[matched] { matched = borders[matched - 1] }
            if scalars[index] == pattern[matched] { matched += 1 }
            if matched == pattern.count { return index + 1 - matched }
        }
        return nil
    }

    func findLast(_ other: JinjaText) -> Int? {
        reversed.find(other.reversed).map { count - $0 - other.count }
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
        reversed.split(separator.reversed, limit: limit).reversed().map(\.reversed)
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

    /// Where a text stands in a wider field.
    enum Side { case left, center, right }

    /// `str.ljust`, `str.center` and `str.rjust`.
    func padded(to width: Int, _ side: Side, with fill: JinjaText) throws -> JinjaText {
        guard fill.count == 1 else {
            throw JinjaFailure.error("The fill character must be exactly one character long")
        }
        guard width > count else { return self }
        try JinjaLimits.check(characters: width)
        let margin = width - count
        let left =
            switch side {
            case .left: 0
            case .center: margin / 2 + (margin & width & 1)
            case .right: margin
            }
        var result = JinjaText()
        for _ in 0..<left { result.append(fill) }
        result.append(self)
        for _ in left..<margin { result.append(fill) }
        return result
    }

    /// `str.zfill`: zeros behind a sign.
    func zeroFilled(to width: Int) throws -> JinjaText {
        guard width > count else { return self }
        let sign = scalars.first == "-" || scalars.first == "+" ? 1 : 0
        let digits = slice(sign..<count)
        var result = slice(0..<sign)
        result.append(try digits.padded(to: width - result.count, .right, with: JinjaText("0")))
        return result
    }
}
