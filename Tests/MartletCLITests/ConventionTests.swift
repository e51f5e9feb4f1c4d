// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// Standard output is data, standard error is news, exit codes and forms are the same everywhere.
@Suite struct ConventionTests {
    static let prompt = ["--input-ids", "51,173,107", "-m", "4"]

    @Test func helpAndDocumentationNameTheSameExitCodes() {
        let program = Program()
        defer { program.remove() }
        let page = String(
            decoding: Program.bytes(
                Program.fixtures.split(separator: "/", omittingEmptySubsequences: false)
                    .dropLast(2).joined(separator: "/") + "/Documentation/CommandLine.md"),
            as: UTF8.self
        ).replacing("\\|", with: "|")
        for help in [["--help"], ["help"], ["-h"]] {
            let result = program.run(help)
            #expect(result.code == 0)
            let lines = result.output.split(separator: "\n")
                .drop { !$0.hasPrefix("Exit codes:") && !$0.hasSuffix("Exit codes:") }
                .dropFirst().prefix { $0.hasPrefix(" ") }
            #expect(lines.count == 15, "\(result.output)")
            for line in lines {
                let code = line.drop { $0 == " " }.prefix { $0 != " " }
                let meaning = line.drop { $0 == " " }.dropFirst(code.count).drop { $0 == " " }
                #expect(page.contains("| \(code) | \(meaning) |"), "\(code) \(meaning)")
            }
        }
    }

    @Test func underscoresAreHyphens() {
        let program = Program()
        defer { program.remove() }
        let plain = program.run(["run", Program.model] + Self.prompt)
        let classic = program.run([
            "run", Program.model, "--input_ids=51,173,107", "--max_output_len", "4",
        ])
        #expect(classic.code == 0, "\(classic.error)")
        #expect(!plain.output.isEmpty)
        #expect(classic.output == plain.output)
    }

    @Test(arguments: ["json", "csv", "md"])
    func answersHaveForms(form: String) throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            ["run", Program.model, "--output", form, "--logprobs", "1"] + Self.prompt
                + ["--input-ids", "1,2"])
        #expect(result.code == 0, "\(result.error)")
        guard form == "json" else {
            let lines = result.output.split(separator: "\n")
            #expect(lines.count == (form == "csv" ? 3 : 4))
            #expect(lines.first?.contains("prompt tokens") == true)
            return
        }
        let rows = try #require(
            JSONValue.parse(ByteView(Array(result.output.utf8)), name: "rows").array)
        #expect(rows.count == 2)
        #expect(rows[0]["tokens"]?.array?.count == 4)
        #expect(rows[0]["logprobs"]?.array?.count == 4)
        #expect(rows[0]["logprobs"]?[0]?["likeliest"]?.array?.count == 1)
        #expect(rows[0]["prompt tokens"]?.int == 3)
        #expect(rows[0]["finish"]?.string == "length")
    }

    @Test func tokensHaveForms() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let plain = program.run(["tokenize", model, "a\nb"])
        #expect(plain.output == "97\t\"a\"\n10\t\"\\n\"\n98\t\"b\"\n", "\(plain.error)")
        let piped = program.run(["tokenize", model, "--ids"], input: "a\nb")
        #expect(piped.output == "97,10,98\n")
        let json = program.run(["tokenize", model, "ab", "--output", "json"])
        let rows = try JSONValue.parse(ByteView(Array(json.output.utf8)), name: "rows").array
        #expect(rows?.compactMap { $0["id"]?.int } == [97, 98])
    }

    // Streams.

    @Test func thePromptMayComeFromStandardInput() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let named = program.run(["run", model, "two\nlines", "-m", "5"])
        let piped = program.run(["run", model, "-m", "5"], input: "two\nlines\n")
        #expect(named.code == 0, "\(named.error)")
        #expect(!named.output.isEmpty)
        #expect(piped.output == named.output)
    }

    @Test(arguments: ["<&-", "< /dev/null"])
    func withoutInputThereIsNoPrompt(redirection: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            ["run", Program.model], shell: "exec \"$0\" \"$@\" \(redirection)")
        #expect(result.code == 2)
        #expect(result.error.hasPrefix("error: there is no prompt. Write: martlet run"))
    }

    @Test func aClosedOutputIsAnError() {
        let program = Program()
        defer { program.remove() }
        for redirection in [">&-", ">/dev/full"] {
            let result = program.run(
                ["run", Program.model] + Self.prompt,
                shell: "exec \"$0\" \"$@\" \(redirection)")
            #expect(result.code == 8, "\(result.error)")
            #expect(result.error.hasPrefix("error: cannot write to standard output: "))
        }
        // No file takes the number of a closed stream.
        let build = program.run(
            ["build", Program.model, "-o", program.folder + "/x.martlet"],
            shell: "exec \"$0\" \"$@\" <&- >&- 2>&-")
        #expect(build.code == 0)
        #expect(program.run(["run", program.folder + "/x.martlet"] + Self.prompt).code == 0)
    }

    @Test func aReaderThatLeavesEndsTheProgram() {
        let program = Program()
        defer { program.remove() }
        let line = "{ \"$0\" \"$@\"; echo $? > '\(program.folder)/code.txt'; } | true"
        // Long enough that the reader is gone before the answer comes.
        _ = program.run(
            ["run", Program.model, "--input-ids", "1", "-m", "400"], shell: "sleep 0.2; " + line)
        #expect(program.bytes("code.txt") == Array("141\n".utf8))
    }

    @Test func completionScriptsAreShellScripts() {
        let program = Program()
        defer { program.remove() }
        for shell in ["bash", "zsh", "fish"] {
            let result = program.run(["completions", shell])
            #expect(result.code == 0)
            #expect(result.output.contains("max-batch-size"))
            program.write(Array(result.output.utf8), to: shell)
            guard ["/bin/", "/usr/bin/"].contains(where: { Program.exists($0 + shell) }) else {
                continue
            }
            let check = program.run(
                [], shell: "\(shell) -n '\(program.folder)/\(shell)'")
            #expect(check.code == 0 && check.error.isEmpty, "\(shell): \(check.error)")
        }
        let wrong = program.run(["completions", "zhs"])
        #expect(wrong.code == 2)
        #expect(wrong.error.hasPrefix("error: there are no completions for 'zhs'. Did you mean"))
    }

    /// What bash offers for `martlet run sm` and for words around it.
    @Test(
        .enabled(if: Program.exists("/bin/bash")),
        arguments: [
            (["martlet", "ru"], "run"), (["martlet", "run", "smo"], "smollm2"),
            (["martlet", "run", "m", "--output", "js"], "json"),
            (["martlet", "run", "fold"], "folder/"),
            (["martlet", "run", "folder/"], "folder/x.gguf"),
        ])
    func bashCompletes(words: [String], offer: String) {
        let program = Program()
        defer { program.remove() }
        program.write(Array(program.run(["completions", "bash"]).output.utf8), to: "script")
        program.makeFolder("folder")
        program.write([], to: "folder/x.gguf")
        let quoted = words.map { "'\($0)'" }.joined(separator: " ")
        let harness = """
            cd '\(program.folder)'
            PATH='\(Program.products)':$PATH
            source ./script
            COMP_WORDS=(\(quoted)); COMP_CWORD=\(words.count - 1)
            COMP_LINE='\(words.joined(separator: " "))'; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
            _martlet martlet '\(words.last ?? "")' '\(words.dropLast().last ?? "")'
            printf '%s\\n' "${COMPREPLY[@]}"
            """
        program.write(Array(harness.utf8), to: "harness")
        let result = program.run([], shell: "exec bash '\(program.folder)/harness'")
        let offers = result.output.split(separator: "\n").map { $0.filter { $0 != " " } }
        #expect(offers.contains(offer), "\(result.output) \(result.error)")
    }
}
