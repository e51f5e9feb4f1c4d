// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Upper and lower case as Python's `str` has them.
extension JinjaText {
    var uppercased: JinjaText { mapped { $0.properties.uppercaseMapping } }
    var lowercased: JinjaText { lowercased(0..<count) }

    /// First character in title case, the rest in lower case.
    var capitalized: JinjaText {
        guard count > 0 else { return self }
        var result = slice(0..<1).mapped { $0.properties.titlecaseMapping }
        result.append(lowercased(1..<count))
        return result
    }

    /// `str.title`: each run of cased letters capitalized.
    var titled: JinjaText {
        var result = JinjaText()
        var afterLetter = false
        for index in 0..<count {
            result.append(
                afterLetter
                    ? lowercased(index..<index + 1)
                    : slice(index..<index + 1).mapped { $0.properties.titlecaseMapping })
            afterLetter = scalars[index].properties.isCased
        }
        return result
    }

    /// `str.swapcase`.
    var swapped: JinjaText {
        var result = JinjaText()
        for index in 0..<count {
            result.append(
                scalars[index].properties.isUppercase
                    ? lowercased(index..<index + 1)
                    : slice(index..<index + 1).mapped { $0.properties.uppercaseMapping })
        }
        return result
    }

    /// A part in lower case; whether a capital sigma ends a word, the whole text decides.
    private func lowercased(_ range: Range<Int>) -> JinjaText {
        var result = JinjaText()
        var start = range.lowerBound
        for index in range where scalars[index] == Self.capitalSigma && endsWord(at: index) {
            result.append(slice(start..<index).mapped { $0.properties.lowercaseMapping })
            result.append(slice(index..<index + 1).mapped { _ in "\u{3c2}" })
            start = index + 1
        }
        result.append(
            slice(start..<range.upperBound).mapped { $0.properties.lowercaseMapping })
        return result
    }

    private static let capitalSigma: Unicode.Scalar = "\u{3a3}"

    /// Unicode's Final_Sigma: a cased letter before and none behind, marks between them not counted.
    private func endsWord(at index: Int) -> Bool {
        func isCased(_ indices: some Sequence<Int>) -> Bool {
            indices.first { !scalars[$0].properties.isCaseIgnorable }
                .map { scalars[$0].properties.isCased } ?? false
        }
        return isCased((0..<index).reversed()) && !isCased(index + 1..<count)
    }
}
