// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// `martlet chat`: through a pipe with the tiny model, at a pseudo-terminal.
@Suite struct ChatTests {
    /// The saved conversation as (role, content) pairs.
    private static func saved(_ program: Program, _ name: String) throws -> [[String]] {
        let json = try JSONValue.parse(ByteView(program.bytes(name)), name: name)
        return (json.array ?? []).map { [$0["role"]?.string ?? "", $0["content"]?.string ?? ""] }
    }

    @Test func eachLineOfAPipeIsAMessage() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let file = program.folder + "/chat.json"
        let result = program.run(
            ["chat", model, "--system", "be brief", "-m", "4", "--verbose"],
            input: "hello\n\n  \nsecond \\\nline\n\"\"\"third\nfourth\"\"\"\n/save \(file)\n")
        #expect(result.code == 0, "\(result.error)")
        let messages = try Self.saved(program, "chat.json")
        #expect(
            messages.map { $0[0] } == [
                "system", "user", "assistant", "user", "assistant", "user", "assistant",
            ])
        #expect(
            messages.filter { $0[0] == "user" }.map { $0[1] } == [
                "hello", "second \nline", "third\nfourth",
            ])
        // Standard output holds the answers alone.
        let answers = messages.filter { $0[0] == "assistant" }.map { $0[1] + "\n" }
        #expect(result.output == answers.joined())
        #expect(result.error.contains("(prompt "))
    }

    /// A turn's prompt is the turn before, token by token, and what was said since.
    @Test func turnsBeginWithTheTokensOfTheTurnBefore() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let result = program.run(
            ["chat", model, "-m", "3", "--verbose", "--logit-bias", "97=100"],
            input: "hi\nyou\n")
        #expect(result.code == 0, "\(result.error)")
        #expect(result.output == "aaa\naaa\n")
        // "user: hi<end>\nassistant: " has 9 + 1 + 12 tokens, the answer 3 more.
        #expect(result.error.contains("(prompt 21 tokens, the first 0 as"), "\(result.error)")
        #expect(
            result.error.contains("tokens, the first 24 as in the turn before"), "\(result.error)")
        // Keys and values of the first 23 are there: the last token's are never computed.
        #expect(result.error.contains("turn before, 23 not computed again"), "\(result.error)")
    }

    /// Baichuan has no template but a token before each turn; an engine file remembers them.
    @Test(arguments: ["baichuan-7b", "baichuan2-7b"])
    func roleTokensStandForATemplate(_ fixture: String) throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeRoleChatModel(fixture)
        let engine = program.folder + "/model.martlet"
        #expect(program.run(["build", model, "-o", engine]).code == 0)
        for path in [model, engine] {
            // "a" is 6. Prompts: 3 h i 4, then that, 6 6, 3 y o u 4: what was computed is not again.
            let chat = program.run(
                ["chat", path, "-m", "2", "--verbose", "--logit-bias", "6=100"], input: "hi\nyou\n")
            #expect(chat.code == 0, "\(chat.error)")
            #expect(chat.output == "aa\naa\n")
            #expect(chat.error.contains("(prompt 4 tokens, the first 0 as"), "\(chat.error)")
            #expect(chat.error.contains("(prompt 11 tokens, the first 6 as"), "\(chat.error)")
            let run = program.run(
                ["run", path, "hi", "--system", "be brief", "-m", "2", "--verbose"])
            #expect(run.code == 0 && run.error.contains("prompt 12 tokens, "), "\(run.error)")
            let raw = program.run(["run", path, "hi", "--raw", "-m", "2", "--verbose"])
            #expect(raw.code == 0 && raw.error.contains("prompt 2 tokens, "), "\(raw.error)")
            // The ids by hand give the same answer as the text.
            let ids = program.run(["run", path, "--input-ids", "3,13,14,4", "-m", "8"])
            #expect(
                ids.code == 0 && ids.output == program.run(["run", path, "hi", "-m", "8"]).output)
        }
    }

    /// Where no more turns fit, the oldest are left out, and the user is told once.
    @Test func roundsThatDoNotFitAreLeftOut() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeRoleChatModel("baichuan2-7b")
        // A round is 3 a b c 4 and two tokens of answer: of 20 tokens, 18 hold two rounds and a half.
        let result = program.run(
            [
                "chat", model, "-m", "2", "--verbose", "--max-context", "20", "--logit-bias",
                "7=100",
            ], input: "abc\nabc\nabc\nabc\n")
        #expect(result.code == 0, "\(result.error)")
        #expect(result.output == "bb\nbb\nbb\nbb\n")
        let prompts = result.error.split(separator: "(prompt ").dropFirst().map {
            String($0.prefix { $0 != " " })
        }
        #expect(prompts == ["5", "12", "12", "12"], "\(result.error)")
        #expect(result.error.ranges(of: "the oldest turns no longer fit").count == 1)
        let long = program.run(
            ["chat", model, "-m", "2", "--max-context", "20"],
            input: String(repeating: "a", count: 30) + "\n")
        #expect(long.code == 6, "\(long.error)")
    }

    @Test func clearAndSystemStartAnew() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let (first, second) = (program.folder + "/a.json", program.folder + "/b.md")
        let result = program.run(
            ["chat", model, "-m", "2", "--system", "one", "--logit-bias", "98=100"],
            input: """
                hello
                /clear
                /system
                again
                /save \(first)
                /system two words
                /system
                now
                /save \(second)
                /exit
                never answered
                """)
        #expect(result.code == 0, "\(result.error)")
        #expect(
            try Self.saved(program, "a.json") == [
                ["system", "one"], ["user", "again"], ["assistant", "bb"],
            ])
        #expect(
            String(decoding: program.bytes("b.md"), as: UTF8.self) == """
                ## system

                two words

                ## user

                now

                ## assistant

                bb

                """)
        #expect(result.error.contains("\none\n") && result.error.contains("\ntwo words\n"))
        #expect(result.output == "bb\nbb\nbb\n")
    }

    @Test(arguments: [
        ("/hlep", 2, "error: unknown command '/hlep'. Did you mean '/help'?"),
        ("/save", 2, "error: /save needs a file. /save chat.md"),
        ("/save /nowhere/x.md", 8, "error: cannot write /nowhere/x.md"),
        (String(repeating: "long ", count: 200), 6, "error: the prompt has "),
    ])
    func errorsOfAPipeEndTheProgram(line: String, code: Int, message: String) {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let result = program.run(["chat", model, "-m", "2"], input: line + "\nhello\n")
        #expect(result.code == Int32(code), "\(result.error)")
        #expect(result.error.contains(message), "\(result.error)")
        #expect(result.output.split(separator: "\n").isEmpty)
    }

    @Test func modelsWithoutATemplateAreRefused() {
        let program = Program()
        defer { program.remove() }
        let result = program.run(["chat", Program.model], input: "hello\n")
        #expect(result.code == 5)
        #expect(result.error.contains("error: the model has no tokenizer"))
    }

    // At a terminal.

    /// Left arrow and backspace over characters of several bytes; history; Ctrl-U; pasted lines.
    @Test func linesAreEdited() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let terminal = try #require(PseudoTerminal(program, ["chat", model, "-m", "1"]))
        #expect(terminal.wait(for: "> "), "\(terminal.screen)")
        // "grüß日" with the last but one replaced: left, backspace, "s".
        terminal.type("grüß日\u{1b}[D\u{7f}s\r")
        #expect(terminal.wait(for: "(cut after 1 tokens"))
        // Up fetches it, Home inserts before it, End behind it.
        let second = terminal.position
        terminal.type("\u{1b}[A\u{1b}[H1\u{5}2\r")
        #expect(terminal.wait(for: "(cut after 1 tokens", after: second))
        let third = terminal.position
        terminal.type("wrong\u{15}a\u{1b}[200~b\rc\u{1b}[201~\r")
        #expect(terminal.wait(for: "(cut after 1 tokens", after: third))
        // Ctrl-C at the prompt drops the line, not the program.
        terminal.type("dropped\u{3}")
        #expect(terminal.wait(for: "(/exit or Ctrl-D to leave)"))
        terminal.type("/save \(program.folder)/chat.json\r")
        #expect(terminal.wait(for: "messages saved in"))
        terminal.type("\u{4}")
        #expect(terminal.finish() == 0)
        let said = try Self.saved(program, "chat.json").filter { $0[0] == "user" }.map { $0[1] }
        #expect(said == ["grüs日", "1grüs日2", "ab\nc"])
    }

    /// A line longer than the terminal is wide is drawn in rows, and drawn again from the first one.
    @Test func longLinesWrap() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let terminal = try #require(
            PseudoTerminal(program, ["chat", model, "-m", "1"], columns: 20))
        #expect(terminal.wait(for: "> "), "\(terminal.screen)")
        let line = String(repeating: "0123456789", count: 5)
        terminal.type(line)
        // 2 columns of prompt and 18 digits, 20, and the rest.
        #expect(
            terminal.wait(for: "> 012345678901234567\r\r\n89012345678901234567\r\r\n890123456789"),
            "\(terminal.screen)")
        terminal.type("\u{1}")
        // Home: the cursor goes up two rows and behind the prompt.
        #expect(terminal.wait(for: "890123456789\u{1b}[2A\r\u{1b}[2C"), "\(terminal.screen)")
        terminal.type("\r")
        #expect(terminal.wait(for: "(cut after 1 tokens"))
        terminal.type("/exit\r")
        #expect(terminal.finish() == 0)
    }

    /// Ctrl-C stops a long answer and keeps what there is of it.
    @Test(.enabled(if: Program.demoModel != nil, "martlet pull smollm2 fetches the model"))
    func interruptStopsTheAnswerAndNotTheProgram() throws {
        let program = Program()
        defer { program.remove() }
        let model = try #require(Program.demoModel)
        let terminal = try #require(
            PseudoTerminal(
                program,
                [
                    "chat", model, "--isa", "scalar", "--threads", "1", "--ignore-eos", "-m",
                    "2000",
                    "--no-cache",
                ]))
        #expect(terminal.wait(for: "> "), "\(terminal.screen)")
        terminal.type("Tell a long story.\r")
        // Some words of the answer, after the editor has left.
        #expect(terminal.wait(for: "\u{1b}[?2004l"))
        let start = terminal.position
        #expect(terminal.wait(for: " the ", after: start, seconds: 120), "\(terminal.screen)")
        terminal.type("\u{3}")
        #expect(terminal.wait(for: "(stopped)", after: start), "\(terminal.screen)")
        terminal.type("/save \(program.folder)/chat.json\r")
        #expect(terminal.wait(for: "(2 messages saved"), "\(terminal.screen)")
        terminal.type("/exit\r")
        #expect(terminal.finish() == 0)
        let messages = try Self.saved(program, "chat.json")
        #expect(messages.first == ["user", "Tell a long story."])
        #expect(messages.last?.last?.contains(" the ") == true)
    }

    /// A terminal that goes away, or SIGTERM, gives the terminal its settings back and a documented code.
    @Test func hangUpEndsTheProgram() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let terminal = try #require(PseudoTerminal(program, ["chat", model]))
        #expect(terminal.wait(for: "> "))
        terminal.signal(15)
        #expect(terminal.finish() == 143)
        #expect(terminal.screen.contains("\u{1b}[?2004l"))
    }
}
