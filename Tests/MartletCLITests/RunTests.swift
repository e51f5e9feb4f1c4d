// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

@Suite struct RunTests {
    /// From both formats; the prompts of the goldens, then eight greedy tokens.
    @Test(arguments: ["", "/model.gguf"])
    func logitsEqualTransformers(file: String) throws {
        let program = Program()
        defer { program.remove() }
        let golden = try Golden()
        let prompt = golden.ids("long.input_ids")
        let greedy = golden.ids("greedy.ids")
        let result = program.run([
            "run", Program.model + file, "--input-ids",
            prompt.map(String.init).joined(separator: ","),
            "--max-output-len", "\(greedy.count)", "--output-logits",
            program.folder + "/logits.npy",
            "--output-csv", program.folder + "/ids.csv",
        ])
        #expect(result.code == 0, "\(result.error)")
        let text = greedy.map(String.init).joined(separator: ",") + "\n"
        #expect(result.output == text)
        #expect(program.bytes("ids.csv") == Array(text.utf8))
        let (header, values) = Golden.array(program.bytes("logits.npy"))
        #expect(
            header.contains("'<f4'") && header.contains("(\(prompt.count + greedy.count), 256)"))
        let expected = golden.values("long.logits") + golden.values("greedy.logits")
        #expect(values.count == expected.count)
        let distance = zip(values, expected).map { abs($0 - $1) }.max() ?? .infinity
        #expect(distance < 1e-4, "largest difference \(distance)")
    }

    @Test func promptsInABatchAnswerAsAlone() {
        let program = Program()
        defer { program.remove() }
        let prompts = (1...11).map { count in
            (0..<count * 3).map { "\(($0 * 37 + count * 11) % 256)" }.joined(separator: ",")
        }
        let shared = ["run", Program.model, "-m", "12"]
        let together = program.run(
            shared + prompts.flatMap { ["--input-ids", $0] }
                + ["--max-batch-size", "4", "--max-num-tokens", "16"])
        let alone = prompts.map { program.run(shared + ["--input-ids", $0]).output }
        #expect(together.code == 0, "\(together.error)")
        #expect(together.output == alone.joined())
    }

    /// Rotary tables grow in steps: an answer across several of them, alike on every instruction set.
    @Test func answersFillTheContext() {
        let program = Program()
        defer { program.remove() }
        let arguments = ["run", Program.model, "--input-ids", "1", "-m", "600"]
        let best = program.run(arguments)
        let plain = program.run(arguments + ["--max-num-tokens", "1", "--threads", "1"])
        #expect(best.code == 0, "\(best.error)")
        #expect(best.output.split(separator: ",").count == 511)
        #expect(best.output == plain.output)
        // The same tokens as one prompt: its last row predicts the same end.
        let ids = ["1"] + best.output.dropLast().split(separator: ",").map(String.init)
        let again = program.run([
            "run", Program.model, "--input-ids", ids.dropLast().joined(separator: ","), "-m", "1",
        ])
        #expect(again.output == (ids.last ?? "") + "\n")
    }

    @Test func aBiasForbids() {
        let program = Program()
        defer { program.remove() }
        let call = ["run", Program.model, "--input-ids", "1,2", "-m", "1"]
        let likeliest = program.run(call).output
        let other = program.run(call + ["--logit-bias", "\(likeliest.dropLast())=-inf"])
        #expect(other.code == 0, "\(other.error)")
        #expect(other.output != likeliest && other.output.count > 1)
    }

    /// Lines end where an editor ends them.
    @Test func promptsOfAFileAreItsLines() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let prompts = ["a\u{0b}b", "c\u{2028}d\u{85}e", "f\u{0c}"]
        program.write(Array((prompts.joined(separator: "\r\n") + "\n\n").utf8), to: "prompts")
        let file = program.run(
            ["run", model, "--input-file", program.folder + "/prompts", "-m", "2"])
        let words = program.run(["run", model] + prompts + ["-m", "2"])
        #expect(file.code == 0, "\(file.error)")
        #expect(file.output == words.output && !words.output.isEmpty)
    }

    /// So few open files that the runtime library cannot start are an error, not a crash.
    @Test func tooFewOpenFilesAreAnError() {
        let program = Program()
        defer { program.remove() }
        let call = ["run", Program.model, "--input-ids", "1,2", "-m", "1"]
        for count in [5, 6, 8, 15] {
            let result = program.run(call, shell: "ulimit -n \(count); exec \"$0\" \"$@\"")
            #expect(result.code == 6, "\(count): \(result.error)")
            #expect(
                result.error.hasPrefix("error: \(count) open files are allowed, but 16 are needed"))
        }
    }

    @Test func drawsRepeatWithTheirSeed() {
        let program = Program()
        defer { program.remove() }
        func draw(_ seed: Int) -> String {
            program.run([
                "run", Program.model, "--input-ids", "1,2", "-m", "16", "--temperature", "1",
                "--seed", "\(seed)",
            ]).output
        }
        #expect(draw(3) == draw(3))
        #expect(draw(3) != draw(4))
    }

    @Test func classicFormAndLogProbabilities() {
        let program = Program()
        defer { program.remove() }
        let classic = program.run([
            "run", Program.model, "--input-ids", "1,2", "-m", "3", "--format", "tensorrt-llm",
        ])
        #expect(
            classic.output == """
                Input [Text 0]: "1,2"
                Output [Text 0 Beam 0]: "92,171,92"

                """)
        let table = program.run([
            "run", Program.model, "--input-ids", "1,2", "-m", "3", "--logprobs", "2",
        ])
        #expect(table.output.split(separator: "\n").count == 5)
        let prompt = program.run([
            "run", Program.model, "--input-ids", "1,2,3", "-m", "0", "--prompt-logprobs", "1",
        ])
        #expect(
            prompt.output == """

                prompt  position  token  logprob  likeliest
                     1         1  2      -7.9296  176 -2.3590
                     1         2  3      -6.6070  92 -2.5100

                """)
    }

    @Test func allAnswersAreCounted() {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "run", Program.model, "--input-ids", "1,2", "-m", "3", "--ignore-eos", "--num-beams",
            "2", "--num-return-sequences", "2", "--verbose",
        ])
        #expect(result.error.contains("answer 6 tokens in "), "\(result.error)")
    }

    @Test func beamsGoWithStopStringsAndLogProbabilities() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "run", program.makeChatModel(), "hi", "-m", "12", "--num-beams", "3", "--stop", "{",
            "--num-return-sequences", "2", "--logprobs", "1", "--output", "json",
        ])
        #expect(result.code == 0, "\(result.error)")
        let rows = try #require(
            JSONValue.parse(ByteView(Array(result.output.utf8)), name: "rows").array)
        #expect(rows.count == 2)
        #expect(rows.contains { $0["finish"]?.string == "stopString" })
        for row in rows {
            #expect(row["text"]?.string?.contains("{") == false)
            #expect(row["logprobs"]?.array?.count == row["tokens"]?.array?.count)
            let isStopped = row["finish"]?.string == "stopString"
            #expect((row["tokens"]?.array?.last?.int == Int(UInt8(ascii: "{"))) == isStopped)
        }
    }

    @Test func tapsAreArrays() {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "run", Program.model, "--input-ids", "1,2,3", "--tap", "layers.*.attention.qkv",
            "--output-npz", program.folder + "/taps.npz",
        ])
        #expect(result.code == 0, "\(result.error)")
        let text = String(decoding: program.bytes("taps.npz"), as: UTF8.self)
        #expect(text.contains("layers.0.attention.qkv.npy"))
        #expect(text.contains("layers.1.attention.qkv.npy"))
        #expect(text.contains("'shape': (3, 128)"))
    }
}
