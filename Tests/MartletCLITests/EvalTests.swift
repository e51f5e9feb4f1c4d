// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// `martlet eval` on the built program.
@Suite struct EvalTests {
    private static func rows(_ text: String) throws -> [JSONValue] {
        try JSONValue.parse(ByteView(Array(text.utf8)), name: "rows").array ?? []
    }

    @Test func predictionsAreScoredWithoutAModel() throws {
        let program = Program()
        defer { program.remove() }
        let samples = """
            {"reference": "the cat sat on the mat", "prediction": "the cat sat"}
            {"references": ["running dogs", "a bird"], "prediction": "runs dog"}

            """
        program.write(Array(samples.utf8), to: "samples.jsonl")
        let arguments = ["eval", "-", "--rouge", program.folder + "/samples.jsonl"]
        let plain = program.run(arguments + ["--output", "json"])
        #expect(plain.code == 0, "\(plain.error)")
        let rows = try Self.rows(plain.output)
        #expect(
            rows.compactMap { $0["metric"]?.string } == ["rouge1", "rouge2", "rougeL", "rougeLsum"])
        // 2 * 1 * 0.5 / 1.5 of the first sample, nothing of the second.
        #expect(rows[0]["f-measure"]?.double == 33.333333)
        #expect(rows[0]["samples"]?.int == 2)
        let stemmed = try Self.rows(
            program.run(arguments + ["--stemmer", "--output", "json"]).output)
        #expect(stemmed[0]["f-measure"]?.double == 83.333333)
        let details = program.run(arguments + ["--details", "--output", "csv"])
        #expect(details.output.contains("0,66.666667,57.142857,66.666667,66.666667,the cat sat"))
        // The gate of TensorRT-LLM's summarize.py.
        #expect(program.run(arguments + ["--min-rouge1", "33"]).code == 0)
        let gate = program.run(arguments + ["--min-rouge1", "34"])
        #expect(gate.code == 1)
        #expect(gate.error.hasPrefix("error: rouge1 is 33.333, below the 34.0 asked for"))
    }

    @Test func promptsAreAnswered() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write(
            Array("{\"reference\": \"aaa\", \"prompt\": \"hi\"}\n".utf8), to: "samples.jsonl")
        let result = program.run([
            "eval", model, "--rouge", program.folder + "/samples.jsonl", "-m", "3", "--logit-bias",
            "97=100", "--output", "json",
        ])
        #expect(result.code == 0, "\(result.error)")
        #expect(try Self.rows(result.output)[0]["f-measure"]?.double == 100)
        #expect(result.error.contains("1 samples, total latency: "))
    }

    @Test(arguments: [
        ("", 2, "holds no samples"),
        ("hello", 4, "samples.jsonl:1: "),
        ("{\"reference\": \"a\", \"prediction\": \"b\"}\n{}", 4, "samples.jsonl:2 needs "),
        ("{\"reference\": 1, \"prediction\": \"b\"}", 4, "\"reference\" is no string"),
        ("{\"reference\": \"a\", \"prompt\": \"b\"}", 2, "has samples without a prediction"),
    ])
    func wrongSamplesAreNamed(text: String, code: Int, message: String) {
        let program = Program()
        defer { program.remove() }
        program.write(Array(text.utf8), to: "samples.jsonl")
        let result = program.run(["eval", "-", "--rouge", program.folder + "/samples.jsonl"])
        #expect(result.code == Int32(code), "\(result.error)")
        #expect(result.error.contains(message), "\(result.error)")
    }

    /// A model does not diverge from itself, and does from its int4 form.
    @Test func modelsAreCompared() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write((0..<600).map { UInt8(97 + $0 * 7 % 26) }, to: "text.txt")
        let arguments = [
            "eval", model, "--perplexity", program.folder + "/text.txt", "--context", "64",
            "--chunks", "3", "--activations", "exact", "--output", "json", "--against", model,
        ]
        func values(_ flags: [String]) throws -> [String: Double] {
            let result = program.run(arguments + flags)
            #expect(result.code == 0, "\(result.error)")
            let pairs = try Self.rows(result.output).map {
                ($0["measure"]?.string ?? "", $0["value"]?.double ?? .nan)
            }
            return Dictionary(pairs, uniquingKeysWith: { first, _ in first })
        }
        let same = try values([])
        #expect(same["KL mean"] == 0 && same["KL largest"] == 0)
        #expect(same["same top token %"] == 100)
        #expect(same["perplexity"] == same["base perplexity"])
        #expect(same["chunks"] == 3 && same["tokens"] == 3 * 31)
        let coded = try values(["--quantize", "int4"])
        #expect((coded["KL mean"] ?? 0) > 1e-6)
        #expect((coded["KL median"] ?? 0) <= (coded["KL p99"] ?? 0))
        #expect(coded["base perplexity"] == same["base perplexity"])
    }

    @Test func aBaseWithoutTokenizerIsNamed() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write(Array(repeating: 97, count: 200), to: "text.txt")
        let result = program.run([
            "eval", model, "--perplexity", program.folder + "/text.txt", "--context", "64",
            "--against", Program.model,
        ])
        #expect(result.code == 5, "\(result.error)")
        #expect(result.error.contains("the model has no tokenizer"))
    }
}
