// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// Loads of `bench`, and the flags of the scheduler.
@Suite(.serialized) struct LoadTests {
    private func json(_ text: String) throws -> [JSONValue] {
        try #require(JSONValue.parse(ByteView(Array(text.utf8)), name: "output").array)
    }

    private static let small = [
        "bench", Program.model, "--random", "uniform:4-20,log:2-30", "--request-count", "24",
        "--max-batch-size", "4",
    ]

    /// Both policies on the same requests: in flight takes fewer steps; the log and the picture agree.
    @Test func staticBesideInFlight() throws {
        let program = Program()
        defer { program.remove() }
        let (log, picture) = (program.folder + "/log.jsonl", program.folder + "/slots.svg")
        let result = program.run(
            Self.small + [
                "--policy", "static,guaranteedNoEvict", "--output", "json", "--iteration-log", log,
                "--timeline", picture, "--slo", "ttft=100,tpot=100", "--seed", "5",
            ])
        #expect(result.code == 0, "\(result.error)")
        let rows = try json(result.output)
        #expect(rows.map { $0["policy"]?.string } == ["static", "guaranteedNoEvict"])
        for row in rows {
            #expect(row["completed"]?.int == 24 && row["failed"]?.int == 0)
            #expect(row["request_goodput"]?.double == row["request_throughput"]?.double)
            #expect(row["request_rate"]?.string == "inf" && row["num_prompts"]?.int == 24)
            for name in ["ttft", "tpot", "itl", "e2el"] {
                for kind in ["mean", "median", "std", "p99"] {
                    #expect(row["\(kind)_\(name)_ms"]?.double != nil, "\(kind) \(name)")
                }
            }
        }
        #expect(rows[0]["total_output_tokens"] == rows[1]["total_output_tokens"])
        #expect((rows[0]["steps"]?.int ?? 0) > (rows[1]["steps"]?.int ?? .max))
        // Rows of finished requests keep the batch full, but for the step in flight when one ends.
        #expect((rows[0]["mean_batch_size"]?.double ?? 0) > 3.5)
        for row in rows {
            let known = row["prefix_hit_tokens"]?.int ?? 0
            let computed = row["prompt_tokens_computed"]?.int ?? 0
            #expect(known + computed == row["total_input_tokens"]?.int)
        }

        let lines = try String(decoding: program.bytes("log.jsonl"), as: UTF8.self)
            .split(separator: "\n").map { try JSONValue.parse(String($0), name: "line") }
        for row in rows {
            let steps = lines.filter { $0["policy"] == row["policy"] }
            #expect(steps.first?["step"]?.int == 0)
            let tokens = steps.reduce(0) { $0 + ($1["answer_tokens"]?.int ?? 0) }
            // Each answer's last token is drawn, not computed.
            #expect(tokens == (row["total_output_tokens"]?.int ?? 0) - 24)
            let padding = steps.reduce(0) { $0 + ($1["padding_tokens"]?.int ?? 0) }
            #expect((padding > 0) == (row["policy"]?.string == "static"))
        }
        let svg = String(decoding: program.bytes("slots.svg"), as: UTF8.self)
        #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
        for text in [
            "static:", "guaranteedNoEvict:", ", prompt, ", ", answer, ", ", computed for nothing, ",
        ] {
            #expect(svg.contains(text), "\(text)")
        }
        #expect(!result.error.contains("\u{1b}"), "no live view without a terminal")
    }

    /// Some requests are cancelled: nothing stays of them, and the others are answered as alone.
    @Test func cancelledRequestsLeaveNothing() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            Self.small + [
                "--cancel-share", "0.5", "--check-alone", "--vary-sampling", "--seed", "5",
                "--output", "json",
            ])
        #expect(result.code == 0, "\(result.error)")
        let row = try #require(try json(result.output).first)
        let (answered, cancelled) = (row["completed"]?.int ?? 0, row["cancelled"]?.int ?? 0)
        #expect(answered + cancelled == 24 && answered > 4 && cancelled > 4)
        #expect(row["repeated_alone"]?.int == answered && row["unlike_alone"]?.int == 0)
        #expect((row["blocks"]?.int ?? 0) > 0 && row["free_blocks"] == row["blocks"])
        #expect(row["descriptors_after"] == row["descriptors_before"])
        // Nor are the runs alone in the log of the load.
        let log = program.folder + "/log.jsonl"
        let none = program.run(
            Self.small + [
                "--cancel-share", "0", "--check-alone", "--iteration-log", log, "--output", "json",
            ])
        let whole = try #require(try json(none.output).first)
        #expect(whole["cancelled"]?.int == 0 && whole["repeated_alone"]?.int == 24)
        let tokens = try String(decoding: program.bytes("log.jsonl"), as: UTF8.self)
            .split(separator: "\n").map { try JSONValue.parse(String($0), name: "line") }
            .reduce(0) { $0 + ($1["answer_tokens"]?.int ?? 0) }
        #expect(tokens == (whole["total_output_tokens"]?.int ?? 0) - 24)
        let wrong = program.run(Self.small + ["--cancel-share", "1.5"])
        #expect(wrong.code != 0 && wrong.error.contains("--cancel-share is 1.5"))
    }

    /// Ctrl-C ends a load: what was measured by then is told and written.
    @Test func interruptedLoadsTellWhatTheyMeasured() throws {
        let program = Program()
        defer { program.remove() }
        let (log, picture) = (program.folder + "/log.jsonl", program.folder + "/slots.svg")
        let terminal = try #require(
            PseudoTerminal(
                program,
                [
                    "bench", Program.model, "--random", "4,40", "--request-count", "4000",
                    "--request-rate", "20", "--policy", "static,guaranteedNoEvict", "--check-alone",
                    "--iteration-log", log, "--timeline", picture,
                ]))
        #expect(terminal.wait(for: " of 4000 requests, "), "\(terminal.screen)")
        terminal.signal(2)
        #expect(terminal.finish() == 130)
        #expect(terminal.wait(for: "requests cancelled"), "\(terminal.screen)")
        #expect(terminal.wait(for: "interrupted"), "\(terminal.screen)")
        let lines = String(decoding: program.bytes("log.jsonl"), as: UTF8.self).split(
            separator: "\n")
        #expect(!lines.isEmpty)
        for line in lines {
            let step = try JSONValue.parse(String(line), name: "line")
            #expect(step["policy"]?.string == "static")
        }
        #expect(String(decoding: program.bytes("slots.svg"), as: UTF8.self).hasSuffix("</svg>\n"))
    }

    /// What one policy measured is told where the next one fails.
    @Test func aLaterPolicyThatFailsCostsNoFigures() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.folder + "/model"
        #expect(program.run([Program.model, model], shell: "cp -r \"$1\" \"$2\"").code == 0)
        let terminal = try #require(
            PseudoTerminal(
                program,
                [
                    "bench", model, "--no-cache", "--random", "4,20", "--request-count", "40",
                    "--request-rate", "20", "--policy", "guaranteedNoEvict,static",
                ]))
        #expect(terminal.wait(for: " of 40 requests, "), "\(terminal.screen)")
        program.remove("model/config.json")
        #expect(terminal.finish() == 3, "\(terminal.screen)")
        #expect(terminal.wait(for: "requests answered"), "\(terminal.screen)")
        #expect(terminal.wait(for: "config.json"), "\(terminal.screen)")
    }

    /// Steps of a load are timed for one policy at a time.
    @Test func aLoadIsProfiled() throws {
        let program = Program()
        defer { program.remove() }
        let result = program.run(Self.small + ["--profile", "--output", "json"])
        let both = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: "output")
        #expect(both["policies"]?.array?.count == 1)
        let steps = try #require(both["steps"]?.array)
        #expect(steps.contains { ($0["us"]?.int ?? 0) > 0 && ($0["count"]?.int ?? 0) > 0 })
        let two = program.run(Self.small + ["--profile", "--policy", "static,guaranteedNoEvict"])
        #expect(two.code != 0 && two.error.contains("one policy"))
    }

    @Test func thePoolIsSharedAsThePolicySays() throws {
        let program = Program()
        defer { program.remove() }
        // 8 blocks of 16 tokens; each request declares 64 tokens and takes 10.
        let result = program.run([
            "bench", Program.model, "--random", "16,10", "--request-count", "16",
            "--declared-output-len", "48", "--max-batch-size", "8", "--kv-cache-memory", "64KiB",
            "--policy", "guaranteedNoEvict,maxUtilization", "--preemption", "recompute",
            "--output", "json",
        ])
        #expect(result.code == 0, "\(result.error)")
        let rows = try json(result.output)
        #expect(rows.allSatisfy { $0["total_output_tokens"]?.int == 160 })
        #expect(
            (rows[0]["mean_batch_size"]?.double ?? 0) < (rows[1]["mean_batch_size"]?.double ?? 0))
    }

    @Test func filesOfOthersAreRead() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write(
            Array(
                #"""
                {"task_id": 0, "prompt": "some text", "output_tokens": 5}
                {"task_id": 1, "input_ids": [5, 6, 7], "output_tokens": 7}

                """#.utf8), to: "a.jsonl")
        program.write(
            Array(
                #"[{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "so"}]}]"#
                    .utf8), to: "b.json")
        program.write(
            Array(
                "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0,20,3\n2023-11-16 18:15:46.2,30,4\n"
                    .utf8), to: "c.csv")
        program.write(
            Array(
                "timestamp,input_length,output_length,hash_ids\n0,20,3,[1]\n0,9000,3,[1]\n".utf8),
            to: "d.csv")
        for (file, count, tokens, more) in [
            ("a.jsonl", 2, 12, []), ("b.json", 1, nil, []), ("c.csv", 2, 7, []),
            ("d.csv", 1, 3, ["--skip-long"]), ("c.csv", 1, 3, ["--request-count", "1"]),
        ] as [(String, Int, Int?, [String])] {
            let result = program.run(
                ["bench", model, "--requests", program.folder + "/" + file, "--output", "json"]
                    + more)
            #expect(result.code == 0, "\(file): \(result.error)")
            let row = try #require(try json(result.output).first)
            #expect(row["completed"]?.int == count, "\(file)")
            if let tokens { #expect(row["total_output_tokens"]?.int == tokens, "\(file)") }
            if file == "c.csv", count == 2 { #expect((row["duration"]?.double ?? 0) >= 0.2) }
        }
        let long = program.run(["bench", model, "--requests", program.folder + "/d.csv"])
        #expect(long.code == 6, "\(long.error)")
        #expect(long.error.contains("d.csv:3: 9003 tokens"), "\(long.error)")
        let none = program.run([
            "bench", model, "--requests", program.folder + "/d.csv", "--skip-long",
            "--max-context", "10",
        ])
        #expect(none.code == 6, "\(none.error)")
        #expect(
            none.error.contains(
                "d.csv: all requests are longer than the context of 10. Raise --max-context"),
            "\(none.error)")
    }

    @Test(arguments: ["text", "csv", "md"])
    func loadsHaveForms(form: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(Self.small + ["--output", form])
        #expect(result.code == 0, "\(result.error)")
        let lines = result.output.split(separator: "\n")
        switch form {
        case "csv": #expect(lines.count == 2 && lines[0].hasPrefix("policy,model_id,num_prompts"))
        case "md": #expect(lines.count == 3 && lines[0].hasPrefix("| policy | model_id"))
        default: #expect(result.output.contains("answer tokens/s"), "\(result.output)")
        }
    }

    /// Policies change when answers are computed, never the answers.
    @Test func runKeepsItsAnswers() {
        let program = Program()
        defer { program.remove() }
        let prompts = (0..<6).flatMap { ["--input-ids", "\(51 + $0),173,107"] } + ["-m", "20"]
        let limits = ["--max-batch-size", "2"]
        let plain = program.run(["run", Program.model] + prompts + limits)
        #expect(plain.code == 0, "\(plain.error)")
        for flags in [
            ["--policy", "static"], ["--policy", "staticSkipping"], ["--no-prefix-cache"],
            [
                "--policy", "maxUtilization", "--preemption", "swap", "--kv-cache-memory", "24KiB",
                "--max-context", "32",
            ],
            ["--policy", "maxUtilization", "--preemption", "recompute"],
        ] {
            let other = program.run(["run", Program.model] + prompts + limits + flags)
            #expect(other.output == plain.output, "\(flags): \(other.error)")
        }
    }

    private static let ids = ["--input-ids", "51,173,107"]

    @Test(arguments: [
        (["bench", Program.model, "--policy", "static"], "--policy has no effect without a load"),
        (
            ["bench", Program.model, "--concurrency", "4"],
            "--concurrency has no effect without a load"
        ),
        (small + ["--policy", "fast"], "--policy fast is not known"),
        (small + ["--policy", "static,static"], "names one twice"),
        (small + ["--preemption", "swap"], "only maxUtilization pauses"),
        (small + ["--preemption", "later", "--policy", "maxUtilization"], "--preemption later"),
        (small + ["--batch-size", "2"], "--batch-size has no effect with a load"),
        (small + ["--compare", "f32,int8"], "--compare has no effect with a load"),
        (small + ["--requests", "x"], "--random and --requests exclude each other"),
        (small + ["--request-rate", "2", "--concurrency", "2"], "exclude each other"),
        (small + ["--request-rate", "0"], "--request-rate is 0.0"),
        (small + ["--request-rate", "nan"], "--request-rate is nan"),
        (small + ["--concurrency", "0"], "--concurrency is 0"),
        (small + ["--skip-long"], "--skip-long has no effect"),
        (small + ["--slo", "itl=1"], "'itl=1' is no service goal"),
        (["bench", Program.model, "--random", "5"], "--random 5 is not IN,OUT"),
        (["bench", Program.model, "--random", "5,log:9-3"], "'log:9-3' is no length"),
        (
            ["bench", Program.model, "--random", "5,5", "--max-context", "6"],
            "Raise --max-context"
        ),
        (
            ["run", Program.model, "--policy", "static"] + ids,
            "--policy has no effect on one prompt"
        ),
        (["run", Program.model, "--no-prefix-cache"] + ids, "--no-prefix-cache has no effect"),
        (
            ["run", Program.model, "--policy", "static,maxUtilization"] + ids + ids,
            "--policy names 2 policies"
        ),
    ])
    func flagsWithoutEffectAreErrors(arguments: [String], text: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(arguments)
        #expect(result.code == 2 || result.code == 6, "\(result.code)")
        #expect(result.error.contains(text), "\(result.error)")
        #expect(result.output.isEmpty)
    }
}
