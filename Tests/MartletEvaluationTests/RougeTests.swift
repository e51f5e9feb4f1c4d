// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEvaluation
import Testing

/// Equality with the Python package `rouge_score`; goldens by scripts/make-rouge-golden.py.
@Suite struct RougeTests {
    static let golden: JSONValue? = {
        let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        let path = parts.dropLast(2).joined(separator: "/") + "/Fixtures/evaluation/rouge.json"
        return try? JSONValue.parse(MappedFile.map(path), name: path)
    }()

    @Test func stemsEqualThePackage() throws {
        let stems = try #require(Self.golden?["stems"]?.object)
        #expect(stems.members.count > 4000)
        let stemmer = PorterStemmer()
        var wrong: [String] = []
        for member in stems.members {
            let stem = stemmer.stem(member.key)
            if stem != member.value.string {
                wrong.append("\(member.key): \(stem), not \(member.value.string ?? "")")
            }
        }
        #expect(wrong.isEmpty, "\(wrong.count): \(wrong.prefix(20))")
    }

    @Test(arguments: [false, true])
    func scoresEqualThePackage(usesStemmer: Bool) throws {
        let golden = try #require(Self.golden)
        let metrics = golden["metrics"]?.array?.compactMap { $0.string.flatMap(Rouge.Metric.init) }
        #expect(metrics == Rouge.Metric.allCases)
        let rouge = Rouge(usesStemmer: usesStemmer)
        let samples = try #require(golden["samples"]?.array)
        #expect(samples.count > 50)
        for (index, sample) in samples.enumerated() {
            let scores = try rouge.scores(
                reference: sample["reference"]?.string ?? "",
                prediction: sample["prediction"]?.string ?? "")
            for (position, metric) in Rouge.Metric.allCases.enumerated() {
                let wanted = sample[usesStemmer ? "stemmed" : "plain"]?[position]?.array ?? []
                let score = try #require(scores[metric])
                #expect(
                    [score.precision, score.recall, score.fMeasure] == wanted.compactMap(\.double),
                    "sample \(index), \(metric)")
            }
        }
    }

    @Test func theBestReferenceCounts() throws {
        let scores = try Rouge().scores(
            references: ["x y", "the cat sat", "the cat"], prediction: "the cat")
        #expect(scores[.rouge1]?.precision == 1)
        #expect(scores[.rouge1]?.recall == 1)
    }

    @Test func textsTooLongToCompareAreRefused() {
        let text = String(repeating: "word ", count: 20_000)
        let error = #expect(throws: MartletError.self) {
            try Rouge().scores(reference: text, prediction: text)
        }
        #expect(error?.code == .limitExceeded)
    }
}
