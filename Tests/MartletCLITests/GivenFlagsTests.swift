// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// A flag that would have no effect is an error that names it.
@Suite struct GivenFlagsTests {
    struct Case: CustomTestStringConvertible {
        let call: [String]
        let flags: [[String]]
        let reason: String
        var testDescription: String { call.joined(separator: " ") }

        /// - Parameter flags: Flags with their values, each of which is refused.
        init(_ call: String, _ reason: String, _ flags: String...) {
            self.call = call.split(separator: " ").map {
                $0 == "MODEL" ? Program.model : String($0)
            }
            self.flags = flags.map { $0.split(separator: " ").map(String.init) }
            self.reason = reason
        }
    }

    static let cases = [
        Case(
            "run MODEL --input-ids 1,2 --tap * --output-npz /tmp/martlet-never-written.npz",
            "with --tap", "--output-csv /tmp/martlet-never-written.csv",
            "--output-logits /tmp/martlet-never-written.npy", "--output json", "--verbose",
            "--format tensorrt-llm", "--temperature 1", "-m 3", "--max-output-len=3",
            "--max_tokens 3", "--logprobs 1", "--prompt-logprobs 1", "--stop x", "--ignore-eos",
            "--num-beams 2", "--best-of 2", "--num-return-sequences 2"),
        Case("run MODEL --input-ids 1,2", "on --input-ids", "--system x", "--raw"),
        Case("run MODEL hi --raw", "with --raw", "--system x"),
        Case("plan MODEL", "on plan", "--no-cache", "--retarget never"),
        Case("selftest --op norm", "on the CPU", "--gpu-code compute_80"),
        Case(
            "eval MODEL --perplexity /dev/null", "with --perplexity", "--temperature 5", "--raw",
            "--stop x", "--min-tokens 4", "--max-context 9", "--max-batch-size 32", "--seed 1"),
        Case("eval - --rouge SAMPLES", "with --rouge", "--context 64", "--chunks 2"),
        Case(
            "eval - --rouge SAMPLES", "where every sample has a prediction", "--temperature 1",
            "--raw", "--quantize int8", "--max-batch-size 4"),
        Case(
            "run MODEL --input-ids 1,2", "at temperature 0", "--seed 1", "--top-k 50",
            "--top-p 0.9", "--min-p 0.1", "--typical-p 0.5", "--top-p-decay 0.9"),
        Case(
            "run MODEL --input-ids 1,2 --temperature 1", "without --top-p-decay",
            "--top-p-min 0.1", "--top-p-reset-id 3"),
        Case("bench MODEL", "at temperature 0", "--seed 1"),
        Case("bench --preset tinyllama-1.1b", "with --preset", "--no-cache"),
        Case("inspect MODEL", "on inspect", "--no-cache"),
        Case("build MODEL -o /tmp/martlet-never-written.martlet", "on build", "--no-cache"),
        Case(
            "build MODEL -o /tmp/martlet-never-written.martlet", "on an engine for CPUs alone",
            "--gpu-code sm_90a"),
        Case("bench MODEL", "without --format llama-bench", "-p 7", "-n 3", "-r 2"),
        Case(
            "bench MODEL --format llama-bench", "with --format llama-bench", "--batch-size 1",
            "--input-output-len 8,2", "--profile", "--num-runs 3", "--duration 1", "--warm-up 0"),
        Case("bench MODEL --compare none,int8", "with --compare", "--quantize int4"),
        Case("inspect MODEL --plan", "without a graph", "--format svg"),
    ]

    @Test(arguments: cases)
    func uselessFlagsAreRefused(item: Case) {
        let program = Program()
        defer { program.remove() }
        program.write(
            Array(#"{"prediction": "a b", "reference": "a b"}"#.utf8), to: "samples.jsonl")
        let call = item.call.map { $0 == "SAMPLES" ? program.folder + "/samples.jsonl" : $0 }
        for flag in item.flags {
            let result = program.run(call + flag)
            #expect(result.code == 2, "\(flag): \(result.error)")
            let name = flag[0].prefix { $0 != "=" }.replacing("_", with: "-")
            #expect(
                result.error.hasPrefix("error: \(name) has no effect \(item.reason)"),
                "\(result.error)")
            #expect(result.output.isEmpty)
        }
    }

    /// What an engine was compiled with cannot be asked for again, the defaults' own words included.
    @Test func enginesRefuseFlagsOfTheCompiler() {
        let program = Program()
        defer { program.remove() }
        let engine = program.folder + "/x.martlet"
        let build = program.run([
            "build", Program.model, "--dtype", "f16", "--kv-dtype", "bf16", "-o", engine,
        ])
        #expect(build.code == 0, "\(build.error)")
        for flag in [
            ["--dtype", "f32"], ["--kv-dtype", "f32"], ["--quantize", "keep"],
            ["--quantize-head=int8"], ["--quantize_embedding", "keep"],
            ["--disable-rule", "add-norm"],
        ] {
            let result = program.run(["run", engine, "--input-ids", "1"] + flag)
            #expect(result.code == 2, "\(flag): \(result.error)")
            let name = flag[0].prefix { $0 != "=" }.replacing("_", with: "-")
            #expect(result.error.contains("is compiled already, \(name) cannot change it"))
        }
        let cache = program.run(["run", engine, "--input-ids", "1", "--no-cache"])
        #expect(cache.code == 2, "\(cache.error)")
        #expect(cache.error.hasPrefix("error: --no-cache has no effect on an engine file"))
        // The whole file has no entry point, and its graph has all forms.
        let point = program.run(["inspect", engine, "--entry-point", "decode"])
        #expect(point.code == 2 && point.error.contains("--entry-point has no effect"))
        for form in ["text", "dot", "mermaid", "svg"] {
            let flags = ["--graph", "--format", form]
            let kept = program.run(["inspect", engine] + flags)
            let fresh = program.run(
                ["inspect", Program.model, "--dtype", "f16", "--kv-dtype", "bf16"] + flags)
            #expect(kept.code == 0 && !kept.output.isEmpty, "\(kept.error)")
            #expect(kept.output == fresh.output, "\(form)")
        }
        let views = program.run(["inspect", engine, "--graph", "--plan"])
        #expect(views.code == 2 && views.error.contains("--graph and --plan are several views"))
    }

    /// A system message needs a template to stand in.
    @Test func aSystemMessageNeedsATemplate() {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        let with = program.run(["run", model, "hi", "--system", "be brief", "-m", "2"])
        #expect(with.code == 0, "\(with.error)")
        program.write(Array(#"{"eos_token": "<end>"}"#.utf8), to: "model/tokenizer_config.json")
        let without = program.run(["run", model, "hi", "--system", "be brief", "-m", "2"])
        #expect(without.code == 5, "\(without.error)")
        #expect(without.error.contains("the model has no chat template"))
    }
}
