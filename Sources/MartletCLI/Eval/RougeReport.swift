// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletEvaluation

/// A line of a ROUGE file.
struct RougeSample {
    let prompt: String?
    let prediction: String?
    let references: [String]

    /// Reads samples, one JSON object a line.
    ///
    /// - Throws: `MartletError` `.corrupt` naming the line.
    static func parse(_ text: String, name: String) throws -> [RougeSample] {
        let lines = text.unicodeScalars.split(
            separator: "\n", omittingEmptySubsequences: false)
        let samples = try lines.enumerated().compactMap { index, line -> RougeSample? in
            let line = String(line)
            guard !line.allSatisfy(\.isWhitespace) else { return nil }
            return try sample(line, place: "\(name):\(index + 1)")
        }
        guard !samples.isEmpty else {
            throw MartletError(.invalidArgument, "\(name) holds no samples")
        }
        return samples
    }

    private static func sample(_ line: String, place: String) throws -> RougeSample {
        let json = try JSONValue.parse(ByteView(Array(line.utf8)), name: place)
        func text(_ key: String) throws -> String? {
            guard let value = json[key], !value.isNull else { return nil }
            guard let text = value.string else {
                throw MartletError(.corrupt, "\(place): \"\(key)\" is no string")
            }
            return text
        }
        var references = try text("reference").map { [$0] } ?? []
        if let list = json["references"]?.array {
            references += try list.map { value in
                guard let text = value.string else {
                    throw MartletError(.corrupt, "\(place): \"references\" holds no strings")
                }
                return text
            }
        }
        let sample = RougeSample(
            prompt: try text("prompt"), prediction: try text("prediction"), references: references)
        guard !references.isEmpty, sample.prompt != nil || sample.prediction != nil else {
            throw MartletError(
                .corrupt,
                "\(place) needs \"reference\" and one of \"prompt\" and \"prediction\"")
        }
        return sample
    }
}

/// ROUGE over samples.
struct RougeReport {
    private let rouge: Rouge
    private var rows: [(prediction: String, scores: [Rouge.Metric: Rouge.Score])] = []

    init(usesStemmer: Bool) { rouge = Rouge(usesStemmer: usesStemmer) }

    /// Scores a sample.
    mutating func add(_ sample: RougeSample, prediction: String) throws {
        rows.append(
            (prediction, try rouge.scores(references: sample.references, prediction: prediction)))
    }

    private func mean(_ metric: Rouge.Metric, _ value: (Rouge.Score) -> Double) -> Double {
        100 * rows.reduce(0) { $0 + ($1.scores[metric].map(value) ?? 0) }
            / Double(max(rows.count, 1))
    }

    /// Mean F-measure of ROUGE-1, in percent.
    var rouge1: Double { mean(.rouge1, \.fMeasure) }

    private static func rounded(_ value: Double) -> JSONValue {
        .double((value * 1e6).rounded() / 1e6)
    }

    /// Means in percent.
    var summary: Table {
        var table = Table(["metric", "f-measure", "precision", "recall", "samples"])
        for metric in Rouge.Metric.allCases {
            table.add([
                .string(metric.rawValue), Self.rounded(mean(metric, \.fMeasure)),
                Self.rounded(mean(metric, \.precision)), Self.rounded(mean(metric, \.recall)),
                .int(rows.count),
            ])
        }
        return table
    }

    /// F-measures of each sample in percent, and what was scored.
    var details: Table {
        var table = Table(["sample"] + Rouge.Metric.allCases.map(\.rawValue) + ["prediction"])
        for (index, row) in rows.enumerated() {
            table.add(
                [.int(index)]
                    + Rouge.Metric.allCases.map {
                        Self.rounded(100 * (row.scores[$0]?.fMeasure ?? 0))
                    }
                    + [.string(row.prediction)])
        }
        return table
    }
}
