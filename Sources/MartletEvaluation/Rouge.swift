// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Compares a text with a reference by the words they share: ROUGE-1, -2, -L and -Lsum.
///
/// Numerics: counts are exact; scores are f64 and equal those of the Python package `rouge_score`.
/// Source: C.-Y. Lin, "ROUGE: A package for automatic evaluation of summaries" (2004), in the form
/// of that package: lower-case ASCII words, sentences of ROUGE-Lsum separated by line ends.
package struct Rouge: Sendable {
    /// A kind of comparison.
    package enum Metric: String, Sendable, CaseIterable {
        /// Words.
        case rouge1
        /// Pairs of words.
        case rouge2
        /// Longest common subsequence of the whole texts.
        case rougeL
        /// Union of the longest common subsequences of sentences.
        case rougeLsum
    }

    /// How much two texts share, each 0 to 1.
    package struct Score: Sendable, Equatable {
        /// Share of the prediction that is in the reference.
        package var precision = 0.0
        /// Share of the reference that is in the prediction.
        package var recall = 0.0

        /// Harmonic mean of both.
        package var fMeasure: Double {
            precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0
        }
    }

    /// Most cells of a subsequence table: words of one text times words of the other.
    package static let maxTableSize = 1 << 28

    private let stemmer: PorterStemmer?

    /// Prepares comparisons.
    ///
    /// - Parameter usesStemmer: Whether words longer than three letters are cut down to stems.
    package init(usesStemmer: Bool = false) { stemmer = usesStemmer ? PorterStemmer() : nil }

    /// Words of a text.
    package func words(_ text: some StringProtocol) -> [String] {
        text.lowercased().utf8.split { byte in
            !(UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                && !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }.map { word in
            let word = String(decoding: word, as: UTF8.self)
            return word.utf8.count > 3 ? stemmer?.stem(word) ?? word : word
        }
    }

    /// Compares a prediction with a reference.
    ///
    /// - Throws: `MartletError` `.limitExceeded` for texts too long for a subsequence table.
    package func scores(reference: String, prediction: String) throws -> [Metric: Score] {
        // Words become numbers once; the same word is the same number in both texts.
        var numbers: [String: Int32] = [:]
        func ids(_ text: some StringProtocol) -> [Int32] {
            words(text).map { word in
                let next = Int32(clamping: numbers.count)
                return numbers[word, default: next].also { numbers[word] = $0 }
            }
        }
        func sentences(_ text: String) -> [[Int32]] {
            text.unicodeScalars.split(separator: "\n").map { ids(String($0)) }
        }
        let (target, found) = (ids(reference), ids(prediction))
        let common = try CommonSubsequence(target, found).count
        return [
            .rouge1: Self.overlap(target, found, length: 1),
            .rouge2: Self.overlap(target, found, length: 2),
            .rougeL: Self.score(hits: common, target.count, found.count),
            .rougeLsum: try Self.summary(sentences(reference), sentences(prediction)),
        ]
    }

    /// The best score over several references, by F-measure, for each metric.
    ///
    /// - Throws: As `scores(reference:prediction:)`.
    package func scores(references: [String], prediction: String) throws -> [Metric: Score] {
        var best: [Metric: Score] = [:]
        for reference in references {
            best.merge(try scores(reference: reference, prediction: prediction)) {
                $1.fMeasure > $0.fMeasure ? $1 : $0
            }
        }
        return best
    }

    private static func score(hits: Int, _ target: Int, _ found: Int) -> Score {
        Score(
            precision: Double(hits) / Double(max(found, 1)),
            recall: Double(hits) / Double(max(target, 1)))
    }

    private static func overlap(_ target: [Int32], _ found: [Int32], length: Int) -> Score {
        func counts(_ words: [Int32]) -> [ArraySlice<Int32>: Int] {
            guard words.count >= length else { return [:] }
            return (0...words.count - length).reduce(into: [:]) {
                $0[words[$1..<$1 + length], default: 0] += 1
            }
        }
        let (a, b) = (counts(target), counts(found))
        let hits = a.reduce(0) { $0 + min($1.value, b[$1.key] ?? 0) }
        return score(
            hits: hits, a.values.reduce(0, +), b.values.reduce(0, +))
    }

    /// Words of each reference sentence that any prediction sentence has in common with it; no
    /// word counts more often than it occurs in either text.
    private static func summary(_ target: [[Int32]], _ found: [[Int32]]) throws -> Score {
        func counts(_ sentences: [[Int32]]) -> [Int32: Int] {
            sentences.joined().reduce(into: [:]) { $0[$1, default: 0] += 1 }
        }
        var (left, right) = (counts(target), counts(found))
        var hits = 0
        for sentence in target {
            var union: Set<Int> = []
            for other in found { union.formUnion(try CommonSubsequence(sentence, other).indices) }
            for index in union.sorted() {
                let word = sentence[index]
                guard let a = left[word], let b = right[word], a > 0, b > 0 else { continue }
                hits += 1
                left[word] = a - 1
                right[word] = b - 1
            }
        }
        return score(
            hits: hits, target.reduce(0) { $0 + $1.count }, found.reduce(0) { $0 + $1.count })
    }
}

extension Int32 {
    fileprivate func also(_ action: (Int32) -> Void) -> Int32 {
        action(self)
        return self
    }
}
