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
            ["run", Program.model, "--output", form, "--logprobs", "1", "--prompt-logprobs", "2"]
                + Self.prompt + ["--input-ids", "1,2"])
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
        #expect(rows[0]["prompt logprobs"]?.array?.count == 2)
        #expect(rows[0]["prompt logprobs"]?[0]?["token"]?.int == 173)
        #expect(rows[1]["prompt logprobs"]?[0]?["likeliest"]?.array?.count == 2)
        #expect(rows[0]["prompt tokens"]?.int == 3)
        #expect(rows[0]["finish"]?.string == "length")
    }

    /// Every command says what it says as a table for programs too.
    @Test(arguments: ["json", "csv", "md"])
    func everyCommandHasForms(form: String) throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let (text, samples) = (program.folder + "/text", program.folder + "/samples.jsonl")
        program.write(Array(String(repeating: "some text ", count: 40).utf8), to: "text")
        program.write(
            Array(#"{"prediction": "a b", "reference": "a b"}"#.utf8), to: "samples.jsonl")
        let commands: [(arguments: [String], column: String)] = [
            (["pull", model], "path"),
            (["build", model, "-o", program.folder + "/x.martlet"], "weight bytes"),
            (["run", model, "hi", "-m", "2"], "prompt tokens"),
            (["chat", model, "-m", "2"], "role"),
            (["bench", model, "--input-output-len", "4,2", "--num-runs", "1"], "latency ms"),
            (
                ["bench", model, "--format", "llama-bench", "-p", "4", "-n", "2", "-r", "1"],
                "n_prompt"
            ),
            (
                [
                    "bench", model, "--compare", "f32,int8", "--input-output-len", "4,2",
                    "--num-runs", "1",
                ], "precision"
            ),
            (["plan", model, "--input-output-len", "4,2"], "part"),
            (["eval", model, "--perplexity", text, "--context", "64"], "perplexity"),
            (["eval", "-", "--rouge", samples], "f-measure"),
            (["inspect", model], ""), (["inspect", model, "--plan"], "family"),
            (["tokenize", model, "hi"], "id"), (["ls"], "kind"), (["doctor"], "found"),
            (["selftest", "--op", "add", "--isa", "scalar"], "passed"),
            (["rm", "--engines"], "kind"),
        ]
        for (arguments, column) in commands {
            let result = program.run(arguments + ["--output", form], input: "hello\n")
            #expect(result.code == 0, "\(arguments): \(result.error)")
            let lines = result.output.split(separator: "\n")
            switch form {
            case "json":
                let json = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: "output")
                #expect(json.array?.isEmpty == false || json.object != nil, "\(arguments)")
                #expect(result.output.contains("\"\(column)"), "\(arguments): \(result.output)")
            case "csv":
                #expect(lines.count >= 2 && lines[0].contains(","), "\(arguments)")
            default:
                #expect(lines.count >= 3 && lines[0].hasPrefix("| "), "\(arguments)")
                #expect(lines[1].hasPrefix("|---|"), "\(arguments)")
            }
        }
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

    /// What zsh and fish write when a word is completed at their prompts; zsh types into a terminal.
    @Test(
        .enabled(if: Program.exists("/usr/bin/zsh"), "zsh is not installed"),
        arguments: ["zsh", "fish"].filter { Program.exists("/usr/bin/" + $0) },
        [
            ("martlet plan --quantize-h", "martlet plan --quantize-head"),
            ("martlet run smo", "martlet run smollm2"),
            ("martlet run m --output js", "martlet run m --output json"),
        ])
    func shellsComplete(shell: String, _ words: (line: String, completed: String)) {
        let program = Program()
        defer { program.remove() }
        program.makeFolder("functions")
        program.write(
            Array(program.run(["completions", shell]).output.utf8), to: "functions/_martlet")
        let isZsh = shell == "zsh"
        let start = isZsh ? "zsh -f -i" : "fish --no-config -i"
        let setup =
            isZsh
            ? "fpath=('\(program.folder)/functions' $fpath); autoload -Uz compinit; compinit -u -D"
            : "source '\(program.folder)/functions/_martlet'"
        let harness = """
            cd '\(program.folder)'
            export PATH='\(Program.products)':$PATH
            zmodload zsh/zpty
            zpty -b inner \(start)
            sleep 1
            all=''
            read_all() {
                for try in {1..100}; do
                    sleep 0.1
                    while zpty -r -t inner seen; do all+=$seen; done
                    [[ $all == *$1* ]] && break
                done
            }
            zpty -w -n inner $'echo "$HOME"/started\\r'
            read_all "$HOME/started"
            zpty -w -n inner "$(cat setup); echo "'"$HOME"/set'$'\\r'
            read_all "$HOME/set"
            zpty -w -n inner $'\(words.line)\\t'
            read_all '\(words.completed)'
            zpty -d inner
            print -r -- $all
            """
        program.write(Array(setup.utf8), to: "setup")
        program.write(Array(harness.utf8), to: "harness")
        let result = program.run([], shell: "exec zsh -f '\(program.folder)/harness'")
        #expect(result.output.contains(words.completed), "\(result.output) \(result.error)")
    }
}
