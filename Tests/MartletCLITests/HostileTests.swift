// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// Values that nobody should pass: one line that names them, a documented code, nothing on standard output.
@Suite struct HostileTests {
    static let run: [(arguments: String, code: Int32, message: String)] = [
        ("--temperature nan", 2, "--temperature is nan, but must be finite and 0 or more"),
        ("--temperature -1", 2, "--temperature is -1.0, but must be finite and 0 or more"),
        ("--temperature inf", 2, "--temperature is inf, but must be finite and 0 or more"),
        ("--temperature abc", 2, "The value 'abc' is invalid for '--temperature"),
        ("--top-k -5", 2, "--top-k is -5, but must be 0 (off) to 2147483647"),
        ("--top-k 99999999999", 2, "--top-k is 99999999999, but must be 0 (off) to 2147483647"),
        ("--top-k 9999999999999999999999", 2, "The value '9999999999999999999999' is invalid"),
        ("--top-p 0", 2, "--top-p is 0.0, but must be above 0, at most 1"),
        ("--min-p nan", 2, "--min-p is nan, but must be 0 to 1"),
        ("--repetition-penalty 0", 2, "--repetition-penalty is 0.0, but must be above 0"),
        ("--presence-penalty inf", 2, "--presence-penalty is inf, but must be a finite number"),
        ("--frequency-penalty nan", 2, "--frequency-penalty is nan, but must be a finite"),
        ("--logit-bias 5", 2, "--logit-bias 5 is not ID=VALUE. Such as 42=-2.5"),
        ("--logit-bias 500=1", 2, "--logit-bias is 500, but must be 0 to 255"),
        ("--seed -1", 2, "The value '-1' is invalid for '--seed"),
        ("--stop-token 999", 2, "--stop-token is 999, but must be 0 to 255"),
        ("--min-tokens 5", 2, "--min-tokens is 5, but must be 0 to -m (2)"),
        (
            "--num-return-sequences 999", 2, "--num-return-sequences is 999, but must be 1 to 256"
        ),
        (
            "--num-return-sequences 3 --best-of 2", 2,
            "--best-of is 2, but must be 3 (--num-return-sequences) to 256"
        ),
        (
            "--num-beams 2 --num-return-sequences 3", 2,
            "--num-return-sequences is 3, but must be at most --num-beams, 2"
        ),
        (
            "--num-beams 2 --temperature 1", 5,
            "a search with 2 beams does not go with --temperature"
        ),
        (
            "--num-return-sequences 3", 2,
            "--num-return-sequences is 3, but at temperature 0 all answers are the same. "
                + "Give --temperature above 0, or --num-beams"
        ),
        ("--best-of 2", 2, "--best-of is 2, but at temperature 0 all answers are the same"),
        ("--num-beams 2 --max-tokens 0", 2, "--max-tokens is 0, but --num-beams needs at least 1"),
        ("--no_repeat_ngram_size -1", 2, "--no-repeat-ngram-size is -1, but must be 0 or more"),
        ("--top-p-decay 2", 2, "--top-p-decay is 2.0, but must be above 0, at most 1"),
        ("--logprobs 1000", 2, "--logprobs is 1000, but must be 0 to 255"),
        ("--prompt-logprobs -1", 2, "--prompt-logprobs is -1, but must be 0 to 255"),
        ("--max-batch-size 0", 2, "--max-batch-size is 0, but must be 1 to 16777216"),
        (
            "--max-batch-size 16777216 --max-num-tokens 16777216", 6,
            "what steps of 16777216 requests are told takes"
        ),
        (
            "--max-num-tokens 4 --max-batch-size 8", 2,
            "--max-num-tokens 4 is less than --max-batch-size 8. Raise --max-num-tokens to 8"
        ),
        ("--max-context 0", 2, "--max-context is 0, but must be 1 to"),
        ("--threads -2", 2, "--threads is -2, but must be 1 to"),
        ("--isa sse9", 2, "instruction set 'sse9' is not available. Available: scalar"),
        ("--kv-cache-memory 0", 2, "--kv-cache-memory 0 is no size. Write it as 512MB or 2GiB"),
        (
            "--kv-cache-memory 9223372036854775807", 6,
            "--kv-cache-memory 9223372036854775807 is beyond the limit of 1000000 TB"
        ),
        ("--kv-cache-memory 1.2.3MB", 2, "--kv-cache-memory 1.2.3MB is no size"),
        ("--kv-cache-memory -1", 2, "--kv-cache-memory -1 is no size"),
        ("--kv-cache-memory 100000GB", 6, "a KV cache of "),
        ("--quantize int4:g7", 2, "'g7' in 'int4:g7' is not known. Forms: "),
        ("--kv-dtype int4", 2, "--kv-dtype int4 is not "),
        (
            "--disable-rule add-nrom", 2,
            "there is no rule named 'add-nrom'. Did you mean 'add-norm'"
        ),
        ("--output jsn", 2, "--output jsn is not known. Use text, json, csv or md"),
        (
            "--output json --format tensorrt-llm", 2,
            "--format tensorrt-llm and --output json exclude each other"
        ),
        ("--output-csv /tmp", 8, "cannot write '/tmp': it is a folder. Name a file in it"),
        ("--output-logits /nowhere/x", 8, "cannot write /nowhere/x: No such file or directory"),
        ("--tap x", 2, "--tap and --output-npz belong together"),
        ("--bogus", 2, "Unknown option '--bogus'"),
        ("--top-k 3 --seed 1 --top-k 4", 2, "--top-k: an option of one value was given 2 times"),
        ("--max-tokens 4", 2, "--max-tokens, -m: an option of one value was given 2 times"),
        ("--input-file /nowhere/x", 3, "cannot open /nowhere/x: No such file or directory"),
        ("--input-file /tmp", 8, "cannot read /tmp: Is a directory"),
    ]

    @Test(arguments: run)
    func runNamesTheValue(arguments: String, code: Int32, message: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            ["run", Program.model, "--input-ids", "1,2"]
                + (arguments.contains("--num-beams 2 --max-tokens") ? [] : ["-m", "2"])
                + arguments.split(separator: " ").map(String.init))
        #expect(result.code == code, "\(result.error)")
        #expect(result.error.hasPrefix("error: " + message), "\(result.error)")
        #expect(result.output.isEmpty)
    }

    static let others: [(arguments: [String], code: Int32, message: String)] = [
        (
            ["run", Program.model, "--input-ids", "-1"], 2,
            "prompt token 0 is -1, but must be 0 to 255. Give token ids of the model's vocabulary"
        ),
        (["run", Program.model, "--input-ids", ""], 2, "'' in --input-ids is no token id"),
        (
            ["run", Program.model, "--input-ids", "1", "--output-csv", ""], 2,
            "the name of a file to write is empty"
        ),
        (["run", Program.model, "--input-ids", "1", "--stop", ""], 2, "a stop string is empty"),
        (["run", "/tmp", "hi"], 3, "/tmp holds none of "),
        (["help", "rnu"], 2, "unknown command 'rnu'. Did you mean 'run'?"),
        (["build", Program.model, "-o", "x.bin"], 2, "'x.bin' does not end in .martlet"),
        (["build", Program.model, "-o", ""], 2, "the name of a file to write is empty"),
        (
            ["build", Program.model, "-o", "json"], 2,
            "--output names 0 engine files and 1 forms. Write: -o NAME.martlet"
        ),
        (
            ["build", Program.model, "-o", "a.martlet", "-o", "b.martlet"], 2,
            "--output names 2 engine files and 0 forms"
        ),
        (
            ["inspect", Program.model, "--graph", "--output", "json"], 2,
            "a graph is no table, --output json cannot print it. Use --format"
        ),
        (["inspect", Program.model, "--format", "png"], 2, "--format png is not known"),
        (["eval", Program.model], 2, "there is nothing to measure. Give --perplexity FILE or"),
        (["eval", Program.model, "--perplexity", "/nowhere/x"], 3, "cannot open /nowhere/x"),
        (
            ["eval", Program.model, "--rouge", "x", "--perplexity", "x"], 2,
            "--perplexity and --rouge exclude"
        ),
        (
            ["eval", "-", "--rouge", "x", "--min-rouge1", "nan"], 2,
            "--min-rouge1 is nan, but must be 0"
        ),
        (["chat", Program.model], 5, "the model has no tokenizer. Use a model made for chat"),
        (["tokenize", Program.model, "hi"], 5, "\(Program.model) has no tokenizer"),
        (["completions", ""], 2, "there are no completions for ''"),
    ]

    @Test(arguments: others)
    func commandsNameTheValue(arguments: [String], code: Int32, message: String) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(arguments)
        #expect(result.code == code, "\(result.error)")
        #expect(result.error.hasPrefix("error: " + message), "\(result.error)")
        #expect(result.output.isEmpty)
    }
}
