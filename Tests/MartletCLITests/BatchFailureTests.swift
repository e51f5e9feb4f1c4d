// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// Several prompts of which some fail: the others are answered, and the failure says whose it is.
@Suite struct BatchFailureTests {
    /// The tiny model with a row of its embedding that is infinite: prompts with this token fail.
    private static let poisoned = 2

    private func makePoisonedModel(_ program: Program) throws -> String {
        program.makeFolder("model")
        program.write(Program.bytes(Program.model + "/config.json"), to: "model/config.json")
        var bytes = Program.bytes(Program.model + "/model.safetensors")
        let headerLength = bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try JSONValue.parse(
            ByteView(Array(bytes[8..<8 + headerLength])), name: "header")
        let tensor = try #require(header["model.embed_tokens.weight"])
        #expect(tensor["dtype"]?.string == "F32")
        let width = try #require(tensor["shape"]?.array?.last?.int)
        let start = try #require(tensor["data_offsets"]?.array?.first?.int)
        for column in 0..<width {
            let place = 8 + headerLength + start + (Self.poisoned * width + column) * 4
            bytes.replaceSubrange(place..<place + 4, with: [0, 0, 0x80, 0x7f])
        }
        program.write(bytes, to: "model/model.safetensors")
        return program.folder + "/model"
    }

    @Test func theOthersAreAnswered() throws {
        let program = Program()
        defer { program.remove() }
        let model = try makePoisonedModel(program)
        let good = ["--input-ids", "1,3", "--input-ids", "4,5,6"]
        let call = ["run", model, "-m", "3"]
        let alone = program.run(
            call + good + [
                "--output-csv", program.folder + "/a.csv", "--output-logits",
                program.folder + "/a.npy",
            ])
        #expect(alone.code == 0, "\(alone.error)")
        let mixed = program.run(
            call + ["--input-ids", "1,3", "--input-ids", "2,3", "--input-ids", "4,5,6"] + [
                "--output-csv", program.folder + "/b.csv", "--output-logits",
                program.folder + "/b.npy",
            ])
        #expect(mixed.code == 9, "\(mixed.error)")
        #expect(mixed.error.hasPrefix("error: prompt 2 of 3: "), "\(mixed.error)")
        #expect(mixed.error.split(separator: "\n").count == 1)
        #expect(mixed.output == alone.output && alone.output.split(separator: "\n").count == 2)
        // One line a prompt: the failed one's is empty.
        let lines = String(decoding: program.bytes("a.csv"), as: UTF8.self).split(separator: "\n")
        #expect(
            String(decoding: program.bytes("b.csv"), as: UTF8.self)
                == "\(lines[0])\n\n\(lines[1])\n")
        #expect(program.bytes("b.npy") == program.bytes("a.npy"))
        let table = program.run(
            call + ["--input-ids", "2,3", "--input-ids", "1,3", "--output", "json"])
        #expect(table.code == 9)
        let rows = try JSONValue.parse(ByteView(Array(table.output.utf8)), name: "answers").array
        #expect(rows?.map { $0["finish"]?.string } == ["error", "length"])
        #expect(rows?.map { $0["answer"]?.int } == [1, 2])
        // Numbers of prompts are the error's, of answers those that are printed.
        for (flags, number) in [(["--prompt-logprobs", "0"], "2"), (["--logprobs", "0"], "1")] {
            let listed = program.run(
                ["run", model, "--input-ids", "2,3", "--input-ids", "1,3", "-m", "1"] + flags)
            let line = listed.output.split(separator: "\n").last
            #expect(line?.split(separator: " ").first == number[...], "\(listed.output)")
        }
    }

    /// Prompts that cannot even begin are no different; several answers keep their lines.
    @Test func allThatFailAreNamed() {
        let program = Program()
        defer { program.remove() }
        let long = (0..<40).map(String.init).joined(separator: ",")
        let prompts = ["1,2", long, "3", "1,300"]
        let result = program.run(
            ["run", Program.model, "-m", "2", "--max-context", "32", "--num-return-sequences", "2"]
                + prompts.flatMap { ["--input-ids", $0] }
                + ["--temperature", "1", "--output-csv", program.folder + "/x.csv"])
        #expect(result.code == 6, "\(result.error)")
        #expect(
            result.error.hasPrefix(
                "error: prompt 2 of 4: the prompt has 40 tokens, but the context of 32 holds at "
                    + "most 31 beside the answer; so failed 4. Shorten"), "\(result.error)")
        #expect(result.output.split(separator: "\n").count == 4)
        let lines = String(decoding: program.bytes("x.csv"), as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.map(\.isEmpty) == [false, false, true, true, false, false, true, true, true])
        // What all have in common is no prompt's.
        let common = program.run(
            ["run", Program.model, "--max-context", "4"]
                + [long, long].flatMap { ["--input-ids", $0] })
        #expect(common.code == 6 && common.error.hasPrefix("error: the prompt has 40 tokens"))
    }

    @Test func tapsOfTheOthersAreWritten() throws {
        let program = Program()
        defer { program.remove() }
        let file = program.folder + "/taps.npz"
        let result = program.run([
            "run", try makePoisonedModel(program), "--input-ids", "1,3", "--input-ids", "1,300",
            "--tap", "layers.0.attention.qkv", "--output-npz", file,
        ])
        #expect(result.code == 2, "\(result.error)")
        #expect(
            result.error.hasPrefix(
                "error: prompt 2 of 2: prompt token 1 is 300, but must be 0 to 255. Give token ids"),
            "\(result.error)")
        let text = String(decoding: program.bytes("taps.npz"), as: UTF8.self)
        #expect(text.contains("0/layers.0.attention.qkv.npy") && !text.contains("1/layers"))
    }

    /// Results replace neither what they are made of nor each other, by whatever name.
    @Test func resultsLeaveSourcesAlone() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let file = program.folder + "/prompts.txt"
        program.write(Array("hi\n".utf8), to: "prompts.txt")
        let engine = program.folder + "/m.martlet"
        #expect(program.run(["build", model, "-o", engine]).code == 0)
        let built = program.bytes("m.martlet")
        program.write(Array(#"{"input_ids": [1, 2], "output_tokens": 2}"#.utf8), to: "load.jsonl")
        let load = program.folder + "/load.jsonl"
        for (arguments, name) in [
            (["run", model, "--input-file", file, "--output-csv", file], file),
            (["run", engine, "hi", "--output-logits", engine], engine),
            (["build", engine, "-o", engine], engine),
            (["bench", model, "--requests", load, "--iteration-log", load], load),
            (["bench", engine, "--requests", load, "--timeline", engine], engine),
            (
                ["bench", model, "--compare", "none,int8", "--chart", model + "/config.json"],
                model + "/config.json"
            ),
        ] {
            let result = program.run(arguments)
            #expect(result.code == 2, "\(arguments): \(result.error)")
            #expect(
                result.error.hasPrefix("error: \(name) would be written over: it belongs to "),
                "\(result.error)")
            #expect(result.output.isEmpty)
        }
        // In the hub's cache the files of a model are links to others.
        let weights = program.bytes("model/model.safetensors")
        program.makeFolder("blobs")
        program.write(weights, to: "blobs/aa")
        #expect(
            program.run([], shell: "ln -sf ../blobs/aa '\(model)/model.safetensors'").code == 0)
        for path in [model + "/model.safetensors", program.folder + "/blobs/aa"] {
            let result = program.run(["run", model, "hi", "--output-logits", path])
            #expect(result.code == 2, "\(result.error)")
            #expect(result.error.hasPrefix("error: \(path) would be written over"))
        }
        #expect(program.bytes("blobs/aa") == weights && !weights.isEmpty)
        #expect(program.bytes("prompts.txt") == Array("hi\n".utf8))
        #expect(program.bytes("m.martlet") == built && !built.isEmpty)
    }
}
