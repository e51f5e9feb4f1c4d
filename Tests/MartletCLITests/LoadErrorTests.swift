// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// What a load of `bench` says where its flags, its file or its results are wrong.
@Suite(.serialized) struct LoadErrorTests {
    private static let random = ["bench", Program.model, "--random", "8,8", "--request-count", "2"]

    private func json(_ text: String) throws -> JSONValue {
        try #require(JSONValue.parse(ByteView(Array(text.utf8)), name: "output").array?.first)
    }

    /// Runs a load of a file.
    private func run(
        _ program: Program, _ text: String, _ name: String, model: String = Program.model,
        _ flags: [String] = []
    ) -> Program.Result {
        program.write(Array(text.utf8), to: name)
        return program.run(
            ["bench", model, "--requests", program.folder + "/" + name, "--output", "json"] + flags)
    }

    @Test(arguments: ["1e-300", "4.9e-324", "1e-30", "1e-20", "0.000001"])
    func aRateThatNobodyWaitsForIsAnError(rate: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(Self.random + ["--request-rate", rate])
        #expect(result.code == 2, "\(result.error)")
        #expect(result.error.contains("but must be 0.00001 (about one a day) to 1000000"))
        let trace = run(
            program, "timestamp,input_length,output_length\n0,4,2\n", "a.csv",
            ["--request-rate", rate])
        #expect(trace.code == 2, "\(trace.error)")
    }

    @Test func aTraceThatNobodyWaitsForIsAnError() throws {
        let program = Program()
        defer { program.remove() }
        let first = "timestamp,input_length,output_length\n0,4,2\n"
        let result = run(program, first + "1e14,4,2\n", "far.csv")
        #expect(result.code == 6, "\(result.error)")
        #expect(result.error.contains("far.csv:3: comes 1000000000"), "\(result.error)")
        #expect(result.error.contains("(30 days). Correct the time"), "\(result.error)")
        // Other times replace those of the file.
        let rate = run(
            program, first + "2592000000,4,2\n", "days.csv", ["--request-rate", "1000"])
        #expect(rate.code == 0, "\(rate.error)")
        #expect(try json(rate.output)["completed"]?.int == 2)
        let mixed = run(
            program,
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,4,2\n5,4,2\n", "mixed.csv"
        )
        #expect(mixed.code == 4, "\(mixed.error)")
        #expect(mixed.error.contains("mixed.csv:3: '5' is a number"), "\(mixed.error)")
    }

    /// An error quotes a file, but does not print it.
    @Test(arguments: [
        (String(repeating: "\0", count: 1 << 20), "x.csv:1: there is no column"),
        (
            "timestamp,input_length,output_length\n0,"
                + String(repeating: "9", count: 1 << 20) + ",2\n", "x.csv:2: '9999"
        ),
        ("{\"output_tokens\": \"" + String(repeating: "y", count: 1 << 20) + "\"}", "x.csv:1: "),
    ]) func errorsAreShort(text: String, message: String) {
        let program = Program()
        defer { program.remove() }
        let result = run(program, text, "x.csv")
        #expect(result.code == 4, "\(result.error.prefix(2000))")
        #expect(result.error.contains(message), "\(result.error.prefix(2000))")
        #expect(result.error.contains("...") && result.error.utf8.count < 2000)
        #expect(!result.error.contains("\0"))
    }

    /// What was measured is printed whatever becomes of files beside it.
    @Test(arguments: ["--iteration-log", "--timeline"])
    func aFileThatCannotBeWrittenCostsNoFigures(flag: String) throws {
        let program = Program()
        defer { program.remove() }
        let (other, name) =
            flag == "--timeline" ? ("--iteration-log", "a.jsonl") : ("--timeline", "a.svg")
        let result = program.run(
            Self.random + [
                flag, "/dev/full", other, program.folder + "/" + name, "--output", "json",
            ])
        #expect(result.code == 8, "\(result.error)")
        #expect(result.error.contains("error: cannot write /dev/full"), "\(result.error)")
        #expect(try json(result.output)["completed"]?.int == 2)
        #expect(!program.bytes(name).isEmpty)
    }

    @Test func wrongPromptsNameTheirLine() {
        let program = Program()
        defer { program.remove() }
        let id = run(
            program,
            """
            {"input_ids": [1], "output_tokens": 2}
            {"input_ids": [1, 2, 999], "output_tokens": 2}
            """, "ids.jsonl")
        #expect(id.code == 2, "\(id.error)")
        #expect(id.error.contains("ids.jsonl:2: prompt token 2 is 999, but must be 0 to 255. Give"))
        let empty = run(
            program,
            """
            {"prompt": "some text", "output_tokens": 2}
            {"prompt": "", "output_tokens": 2}
            """, "empty.jsonl", model: program.makeChatModel())
        #expect(empty.code == 4, "\(empty.error)")
        #expect(empty.error.contains("empty.jsonl:2: \"prompt\" is empty"), "\(empty.error)")
        #expect(empty.error.contains("Such as"), "\(empty.error)")
        let text = run(program, "{\"prompt\": \"x\", \"output_tokens\": 2}", "text.jsonl")
        #expect(text.code == 5, "\(text.error)")
        #expect(text.error.contains("text.jsonl:1: "), "\(text.error)")
        #expect(text.error.contains("has no tokenizer. Give JSON lines"), "\(text.error)")
        #expect(text.error.contains("\"input_ids\""), "\(text.error)")
    }

    /// What is cancelled as asked for has not failed.
    @Test func allRequestsMayBeCancelled() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run([
            "bench", Program.model, "--random", "4,60", "--request-count", "12", "--cancel-share",
            "1", "--output", "json",
        ])
        #expect(result.code == 0, "\(result.error)")
        let row = try json(result.output)
        #expect(row["failed"]?.int == 0 && (row["cancelled"]?.int ?? 0) > 6)
        let isNoneAnswered = row["completed"]?.int == 0
        #expect(result.error.contains("--cancel-share cancelled all of them") == isNoneAnswered)
    }

    @Test func aDeclaredLengthHasAnEffect() {
        let program = Program()
        defer { program.remove() }
        let result = program.run(Self.random + ["--declared-output-len", "4"])
        #expect(result.code == 2, "\(result.error)")
        #expect(
            result.error.contains("--declared-output-len is 4, but the shortest answer has 8"),
            "\(result.error)")
        #expect(program.run(Self.random + ["--declared-output-len", "8"]).code == 0)
    }

    @Test func helpSaysTheBatchOfALoad() {
        let program = Program()
        defer { program.remove() }
        let help = program.run(["bench", "--help"]).output.split(whereSeparator: \.isWhitespace)
            .joined(separator: " ")
        #expect(help.contains("of a load --concurrency up to 256, else 16"))
    }
}
