// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// What a user writes is read as it is, or refused: by its bytes, by its lines, by its length.
@Suite struct InputTextTests {
    /// Bytes that are no UTF-8 are one error, wherever they come from, and no other text.
    @Test(arguments: [
        ("\"$0\" run M \"$(printf 'a\\377b')\"", 2, "argument 3 is no UTF-8 text: byte 1 is 0xff"),
        (
            "\"$0\" run M hi --system \"$(printf '\\303')\"", 2,
            "argument 5 is no UTF-8 text: byte 0 is 0xc3"
        ),
        ("printf 'ab\\355\\240\\200' | \"$0\" run M", 4, "standard input is no UTF-8 text: byte 2"),
        ("\"$0\" run M --input-file F", 4, "F is no UTF-8 text: byte 5 is 0xfe"),
        ("\"$0\" eval M --perplexity F", 4, "F is no UTF-8 text: byte 5 is 0xfe"),
        ("printf '\\200' | \"$0\" tokenize M", 4, "standard input is no UTF-8 text: byte 0"),
    ])
    func bytesThatAreNoTextAreRefused(line: String, code: Int, message: String) {
        let program = Program()
        defer { program.remove() }
        let file = program.folder + "/prompts"
        program.write(Array("good\n".utf8) + [0xfe, 0x0a], to: "prompts")
        let model = program.makeChatModel()
        let shell = line.replacing(" M", with: " '\(model)'").replacing(" F", with: " '\(file)'")
        let result = program.run([], shell: shell)
        #expect(result.code == Int32(code), "\(result.error)")
        let expected = "error: " + message.replacing("F is", with: "\(file) is")
        #expect(result.error.hasPrefix(expected), "\(result.error)")
        #expect(result.error.hasSuffix(". Convert it, as with: iconv -f latin1 -t utf-8\n"))
        #expect(result.output.isEmpty)
    }

    /// The messages before a wrong one are answered.
    @Test func aConversationEndsAtBytesThatAreNoText() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let result = program.run(
            [], shell: "printf 'hi\\r\\nyou \\377\\n' | \"$0\" chat '\(model)' -m 2")
        #expect(result.code == 4, "\(result.error)")
        #expect(
            result.error.contains("error: line 2 of standard input is no UTF-8 text: byte 4 is"),
            "\(result.error)")
        #expect(!result.output.isEmpty)
    }

    /// Rows of results are lines of the file: an empty one among them is no prompt that is passed over.
    @Test func emptyLinesAreNamed() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let file = program.folder + "/prompts"
        let call = ["run", model, "-m", "2", "--input-file", file]
        program.write(Array("a\n\nb\n".utf8), to: "prompts")
        let empty = program.run(call)
        #expect(empty.code == 2 && empty.output.isEmpty)
        #expect(empty.error.hasPrefix("error: line 2 of \(file) is empty, but each is a prompt"))
        program.write(Array("a\nb\n\n\n".utf8), to: "prompts")
        let csv = program.folder + "/ids.csv"
        #expect(program.run(call + ["--output-csv", csv]).code == 0)
        #expect(program.bytes("ids.csv").count { $0 == UInt8(ascii: "\n") } == 2)
    }

    /// A prompt beyond what templates may make is too long, and no fault of the template.
    @Test func aVeryLongPromptIsTooLong() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write([UInt8](repeating: UInt8(ascii: "a"), count: 5 << 20), to: "prompts")
        let result = program.run(
            ["run", model, "--input-file", program.folder + "/prompts", "-m", "2"])
        #expect(result.code == 6, "\(result.error)")
        #expect(
            result.error.hasPrefix(
                "error: the prompt has 5242880 tokens, but the context of 512 holds at most 511"),
            "\(result.error)")
        #expect(!result.error.contains("template"))
    }
}
