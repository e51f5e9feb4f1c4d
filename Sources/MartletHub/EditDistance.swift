// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Nearest words, for "did you mean".
package enum EditDistance {
    /// The fewest insertions, deletions, replacements and swaps of neighbours between two words.
    package static func between(_ left: String, _ right: String) -> Int {
        let a = Array(left.lowercased().unicodeScalars)
        let b = Array(right.lowercased().unicodeScalars)
        guard !a.isEmpty, !b.isEmpty else { return max(a.count, b.count) }
        var before = [Int](repeating: 0, count: b.count + 1)
        var previous = Array(0...b.count)
        for i in 1...a.count {
            var row = [i] + [Int](repeating: 0, count: b.count)
            for j in 1...b.count {
                let cost = a[i - 1] == b[j - 1] ? 0 : 1
                row[j] = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + cost)
                if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
                    row[j] = min(row[j], before[j - 2] + 1)
                }
            }
            before = previous
            previous = row
        }
        return previous[b.count]
    }

    /// The nearest candidate if it is near enough to be meant: a third of its length, at least 1.
    package static func nearest(_ word: String, among candidates: [String]) -> String? {
        guard word.utf8.count <= 256 else { return nil }
        let ranked = candidates.map { (name: $0, distance: between(word, $0)) }
        guard let best = ranked.min(by: { $0.distance < $1.distance }) else { return nil }
        return best.distance <= max(1, best.name.count / 3) ? best.name : nil
    }
}
