// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// The longest common subsequence of two word lists.
struct CommonSubsequence {
    private let reference: [Int32]
    private let other: [Int32]
    /// `[reference + 1, other + 1]`: length for the first i and the first j words.
    private let table: [Int32]

    /// Fills the table.
    ///
    /// - Throws: `MartletError` `.limitExceeded` for more than `Rouge.maxTableSize` cells.
    init(_ reference: [Int32], _ other: [Int32]) throws {
        let columns = other.count + 1
        let (size, overflow) = (reference.count + 1).multipliedReportingOverflow(by: columns)
        guard !overflow, size <= Rouge.maxTableSize else {
            throw MartletError(
                .limitExceeded,
                "texts of \(reference.count) and \(other.count) words are too long to compare, "
                    + "\(Rouge.maxTableSize) pairs of words are the limit",
                mend: "Split them by line ends into several samples")
        }
        var table = [Int32](repeating: 0, count: size)
        for i in reference.indices {
            for j in other.indices {
                let above = table[i * columns + j + 1]
                let before = table[(i + 1) * columns + j]
                table[(i + 1) * columns + j + 1] =
                    reference[i] == other[j] ? table[i * columns + j] + 1 : max(above, before)
            }
        }
        self.reference = reference
        self.other = other
        self.table = table
    }

    /// Its length.
    var count: Int { Int(table.last ?? 0) }

    /// Positions in the reference of one such subsequence, from the end.
    ///
    /// Where there are several, the choice is that of `rouge_score`: it decides which words
    /// ROUGE-Lsum unites.
    var indices: [Int] {
        let columns = other.count + 1
        var (i, j) = (reference.count, other.count)
        var found: [Int] = []
        while i > 0, j > 0 {
            if reference[i - 1] == other[j - 1] {
                found.append(i - 1)
                (i, j) = (i - 1, j - 1)
            } else if table[i * columns + j - 1] > table[(i - 1) * columns + j] {
                j -= 1
            } else {
                i -= 1
            }
        }
        return found
    }
}
