// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// Wrong calls: one clear line and a documented exit code.
@Suite struct ErrorTests {
    struct Case: CustomTestStringConvertible {
        let arguments: [String]
        let code: Int32
        let message: String
        var testDescription: String { arguments.joined(separator: " ") }

        init(_ code: Int32, _ message: String, _ arguments: String...) {
            self.arguments = arguments.map { $0 == "MODEL" ? Program.model : $0 }
            self.code = code
            self.message = message
        }
    }

    static let cases = [
        Case(2, "error: unknown command 'rnu'. Did you mean 'run'?", "rnu"),
        Case(
            2, "error: Unknown option '--tempurature'. Did you mean '--temperature'?", "run",
            "MODEL", "--tempurature", "1"),
        Case(3, "error: unknown model 'smolm2'. Did you mean 'smollm2'?", "pull", "smolm2"),
        Case(3, "error: no such file: /nowhere/x.gguf", "run", "/nowhere/x.gguf", "hi"),
        Case(2, "error: there is no prompt. Write: martlet run", "run", "MODEL"),
        Case(5, "error: the model has no tokenizer", "run", "MODEL", "hello"),
        Case(
            2, "error: prompt token 2 is 300, but must be 0 to 255", "run", "MODEL", "--input-ids",
            "1,2,300"),
        Case(
            2, "error: 'x' in --input-ids is no token id. Write ids with commas, such as 1,2,3",
            "run",
            "MODEL", "--input-ids", "1,x"),
        Case(
            2, "error: -m is -1, but must be 0 or more", "run", "MODEL", "--input-ids", "1", "-m",
            "-1"),
        Case(
            2, "error: --max-output-len is -1, but must be 0 or more", "run", "MODEL",
            "--input-ids", "1", "--max_output_len=-1"),
        Case(
            2, "error: 'g32' in 'int4:g64:g32' contradicts what stands before it", "run", "MODEL",
            "--input-ids", "1", "--quantize", "int4:g64:g32"),
        Case(
            6,
            "error: the prompt has 4 tokens, but the context of 4 holds at most 3 beside the "
                + "answer. Shorten the prompt, or raise --max-context if it is below the model's",
            "run", "MODEL",
            "--input-ids", "1,2,3,4", "--max-context", "4"),
        Case(
            2, "error: --memory-fraction has no effect on the CPU", "run", "MODEL", "--input-ids",
            "1", "--memory-fraction", "0.5"),
        Case(
            2, "error: there is no code to translate for --force-sm 70. Use 80 or 90", "run",
            "MODEL", "--input-ids", "1", "--device", "cuda", "--force-sm", "70"),
        Case(
            6, "error: a context of 600 tokens is outside the model's 1 to 512", "run", "MODEL",
            "--input-ids", "1", "--max-context", "600"),
        Case(
            6,
            "error: 20000 bytes of KV cache are 2 pages of 8192 bytes, but a request of 100 "
                + "tokens needs 7", "run", "MODEL", "--input-ids", "1", "--max-context", "100",
            "--kv-cache-memory", "20kB"),
        Case(
            2, "error: there is no rule named 'foo'. Rules: ", "inspect", "MODEL", "--disable-rule",
            "foo"),
        Case(
            2, "error: 'sym' in 'int4:asym:sym' contradicts what stands before it", "run", "MODEL",
            "--input-ids", "1", "--quantize", "int4:asym:sym"),
        Case(
            2,
            "error: \(Program.model)/config.json would be written over: it belongs to "
                + "\(Program.model). Name another file", "run", "MODEL", "--input-ids", "1",
            "--output-csv", Program.model + "/config.json"),
        Case(
            2, "error: same.csv is named for two results. Name two files", "run", "MODEL",
            "--input-ids", "1", "--output-logits", "same.csv", "--output-csv", "./same.csv"),
        Case(
            2, "error: 'int3' is no weight scheme", "run", "MODEL", "--input-ids", "1",
            "--quantize", "int3"),
        Case(
            2, "error: --dtype int8 is not f32, f16 or bf16", "run", "MODEL", "--input-ids", "1",
            "--dtype", "int8"),
        Case(
            2, "error: no module matches the tap 'nothing'", "run", "MODEL", "--input-ids", "1",
            "--tap", "nothing", "--output-npz", "/tmp/martlet-never-written.npz"),
        Case(
            2, "error: --logit-bias 1=x is not ID=VALUE. Such as 42=-2.5, or 42=-inf for never",
            "run", "MODEL", "--input-ids", "1", "--logit-bias", "1=x"),
        Case(
            2, "error: --output xml is not known. Use text, json, csv or md", "ls", "--output",
            "xml"),
        Case(
            8,
            "error: cannot write /nowhere/x.martlet: No such file or directory. Create the folder first",
            "build", "MODEL", "-o", "/nowhere/x.martlet"),
        Case(6, "error: a context of 550 tokens", "bench", "MODEL", "--input-output-len", "500,50"),
        Case(
            3, "error: there is no entry point 'foo'. Entry points: decode", "inspect", "MODEL",
            "--entry-point", "foo"),
    ]

    @Test(arguments: cases)
    func wrongCallsSayWhatMendsThem(item: Case) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(item.arguments)
        #expect(result.code == item.code, "\(result.error)")
        #expect(result.error.hasPrefix(item.message), "\(result.error)")
        #expect(result.output.isEmpty)
    }

    /// A configuration that does not belong to the weights, or means nothing.
    @Test(arguments: [
        (
            "\"hidden_size\": 64", "\"hidden_size\": 128",
            "'model.embed_tokens.weight' has shape [256, 64], the configuration needs [256, 128]: "
                + "hidden_size or ", 4
        ),
        (
            "\"vocab_size\": 256", "\"vocab_size\": 268435456",
            "needs [268435456, 64]: vocab_size is 268435456", 4
        ),
        (
            "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
            "the checkpoint lacks 9 of the model's tensors, such as "
                + "'model.layers.2.input_layernorm.weight': num_hidden_layers is 3", 3
        ),
        (
            "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
            "the checkpoint has 9 tensors that llama does not read, such as "
                + "'model.layers.1.input_layernorm.weight': num_hidden_layers is 1", 5
        ),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0", "is 0, not an integer", 5),
        ("LlamaForCausalLM", "FooForCausalLM", "architecture FooForCausalLM", 5),
        ("{", "[", "config.json: expected , or ]", 4),
    ])
    func wrongConfigurationsAreNamed(old: String, new: String, message: String, code: Int) {
        let program = Program()
        defer { program.remove() }
        let text = String(decoding: Program.bytes(Program.model + "/config.json"), as: UTF8.self)
        let changed = text.replacing(old, with: new, maxReplacements: 1)
        #expect(changed != text)
        program.makeFolder("model")
        program.write(Array(changed.utf8), to: "model/config.json")
        program.write(
            Program.bytes(Program.model + "/model.safetensors"), to: "model/model.safetensors")
        let result = program.run(["run", program.folder + "/model", "--input-ids", "1,2"])
        #expect(result.code == Int32(code), "\(result.error)")
        #expect(result.error.contains(message), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1)
        #expect(result.output.isEmpty)
    }

    /// The memory that the error names is enough, also where layers see a window.
    @Test(arguments: ["mistral-window", "qwen2-window", "llama-gqa"])
    func theNamedKVMemoryIsEnough(fixture: String) throws {
        let program = Program()
        defer { program.remove() }
        let run = [
            "run",
            Program.fixtures + "/" + fixture, "--no-cache", "--ignore-eos", "--max-context", "160",
            "--input-ids", (1...70).map(String.init).joined(separator: ","), "-m", "90",
            "--kv-cache-memory",
        ]
        let refused = program.run(run + ["1kB"])
        #expect(refused.code == 6, "\(refused.error)")
        let mend = try #require(refused.error.split(separator: "--kv-cache-memory to ").last)
        let result = program.run(run + [String(mend.prefix { $0.isNumber })])
        #expect(result.code == 0, "\(result.error)")
    }

    /// Truncated and changed checkpoints: an error of the documented kinds, or an answer; never a signal.
    @Test func damagedCheckpointsAreErrors() {
        let program = Program()
        defer { program.remove() }
        let whole = Program.bytes(Program.model + "/model.gguf")
        var random: UInt64 = 7
        for round in 0..<24 {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            var bytes = whole
            if round % 2 == 0 {
                bytes = Array(bytes.prefix(Int(random >> 33) % whole.count))
            } else {
                // The head holds all counts, names, shapes and offsets.
                bytes[Int(random >> 33) % 4096] ^= 1 << UInt8((random >> 20) & 7)
            }
            program.write(bytes, to: "damaged.gguf")
            let result = program.run(
                [
                    "run", program.folder + "/damaged.gguf", "--input-ids", "1,2", "-m", "2",
                    "--no-cache",
                ])
            #expect([0, 2, 3, 4, 5, 6].contains(result.code), "round \(round): \(result.error)")
            if round % 2 == 0 { #expect(result.code == 4, "round \(round): \(result.error)") }
            if result.code != 0 {
                #expect(result.error.hasPrefix("error: "))
                #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
            }
        }
    }
}
