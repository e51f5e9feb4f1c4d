// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// One side of a comparison: a precision by the word a user types.
struct BenchPrecision: Hashable {
    /// The word.
    let name: String

    /// Plain numbers in every matrix, by their word; nil for a scheme or `keep`.
    private var plainType: String? {
        switch name {
        case "none", "f32", "float32": "f32"
        case "f16", "float16": "f16"
        case "bf16", "bfloat16": "bf16"
        default: nil
        }
    }

    /// Reads a list such as `bf16,int8,int4`.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for fewer than two, one twice, or a word that is none.
    static func parse(_ text: String) throws -> [BenchPrecision] {
        let words = text.split(separator: ",").map { word in
            String(word.filter { $0 != " " })
        }
        guard words.count >= 2, Set(words).count == words.count, !words.contains("") else {
            throw MartletError(
                .invalidArgument,
                "--compare \(text) does not name two or more different precisions",
                mend: "Such as bf16,int8,int4")
        }
        let precisions = words.map(BenchPrecision.init(name:))
        // Before the first one is measured.
        for precision in precisions where precision.plainType == nil {
            try EngineBuilder.checkWeights(precision.name)
        }
        return precisions
    }

    /// Flags of `bench` that choose it.
    ///
    /// Schemes leave embedding and head to their own flags, as weight-only quantization does.
    var flags: [String] {
        guard let plainType else { return ["--quantize", name] }
        return ["--dtype", plainType]
            + ["--quantize", "--quantize-embedding", "--quantize-head"].flatMap { [$0, "none"] }
    }

    /// Flags of a command line that this precision's own replace.
    func replaces(_ flag: String) -> Bool {
        let always = ["--compare", "--chart", "--output", "--quantize"]
        let plain = ["--dtype", "--quantize-embedding", "--quantize-head"]
        return always.contains(flag) || (plainType != nil && plain.contains(flag))
    }
}
