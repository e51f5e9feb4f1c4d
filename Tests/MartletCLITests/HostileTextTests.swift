// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

/// A model with one hostile file beside its good ones: one line that names what is wrong, and no more
/// than twice the file and 64 MB of memory where only text is read.
@Suite struct HostileTextTests {
    struct Case: CustomTestStringConvertible {
        let name: String
        let file: String
        let code: Int32
        let message: String
        let make: @Sendable () -> [UInt8]
        var testDescription: String { "\(file): \(name)" }

        init(
            _ file: String, _ name: String, _ code: Int32, _ message: String,
            _ make: @escaping @Sendable () -> [UInt8]
        ) {
            self.name = name
            self.file = file
            self.code = code
            self.message = message
            self.make = make
        }

        init(
            _ file: String, _ name: String, _ code: Int32, _ message: String, _ text: String
        ) {
            self.init(file, name, code, message) { Array(text.utf8) }
        }
    }

    private static func repeated(_ unit: String, _ count: Int) -> [UInt8] {
        let unit = Array(unit.utf8)
        return (0..<count * unit.count).map { unit[$0 % unit.count] }
    }

    /// Files that are read for `tokenize`, within their bound of memory.
    static let tokenizers = [
        Case("tokenizer.json", "nothing", 4, "byte 0", ""),
        Case("tokenizer.json", "a Git LFS pointer", 4, "git lfs pull") {
            Array("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".utf8)
        },
        Case("tokenizer.json", "deep nesting", 4, "128 levels") {
            Array(#"{"x": "#.utf8) + repeated("[", 1 << 20)
        },
        Case("tokenizer.json", "an id of 2^40", 4, "1099511627776") {
            Array(#"{"model": {"vocab": {"a": 1099511627776}, "merges": []}}"#.utf8)
        },
        Case("tokenizer.json", "a vocabulary without end", 4, "1048576") {
            var text = Array(#"{"model": {"vocab": {"a":0"#.utf8)
            for id in 1..<1_200_000 { text += ",\"\(id)x\":\(id)".utf8 }
            return text + "}}}".utf8
        },
        Case("tokenizer.json", "a normalizer of another world", 5, "normalizer") {
            Array(
                (#"{"normalizer": {"type": "Evil"}, "pre_tokenizer": {"type": "ByteLevel"}, "#
                    + #""model": {"vocab": {"a": 0}, "merges": []}}"#).utf8)
        },
        Case("tokenizer.model", "nothing", 5, "model_type", ""),
        Case("tokenizer.model", "a length beyond the end", 4, "bytes") {
            [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x41]
        },
        Case("tokenizer.model", "a million empty pieces", 4, "empty") {
            repeated("\u{a}\u{0}", 1 << 20)
        },
    ]

    @Test(arguments: tokenizers)
    func tokenizersEndInOneLineWithinMemory(_ item: Case) {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        if item.file == "tokenizer.model" { program.remove("model/tokenizer.json") }
        let bytes = item.make()
        program.write(bytes, to: "model/" + item.file)
        let limit = (2 * bytes.count + (64 << 20)) / 1024
        let result = program.run(
            ["tokenize", model, "hello"], shell: "ulimit -d \(limit); exec \"$0\" \"$@\"")
        expectOneLine(result, item)
    }

    private static func template(_ name: String, _ code: Int32, _ message: String, _ text: String)
        -> Case
    {
        Case("tokenizer_config.json", name, code, message) {
            let escaped = text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
            return Array("{\"eos_token\": \"<end>\", \"chat_template\": \"\(escaped)\"}".utf8)
        }
    }

    /// Files that are read for `run`.
    static let others = [
        template("a reflection", 2, "__class__", "{{ ''.__class__.__mro__ }}"),
        template("an import", 5, "import", "{% import 'os' as os %}{{ os }}"),
        template("an include", 5, "include", "{% include '/etc/passwd' %}"),
        template(
            "a loop without end", 6, "limit",
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        template(
            "a range too long", 2, "larger than 100000. Correct", "{{ range(100000000) | length }}"),
        template(
            "a growing string", 6, "limit",
            "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"
        ),
        template(
            "endless recursion", 6, "limit",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        template(
            "deep parentheses", 6, "nesting exceeds 200",
            "{{ " + String(repeating: "(", count: 100_000) + "1"
                + String(repeating: ")", count: 100_000) + " }}"),
        template("its own refusal", 2, "no such role", "{{ raise_exception('no such role') }}"),
        template(
            "orders to the terminal", 2, #"no\nrole \u{1b}[31m"#,
            #"{{ raise_exception('no\nrole \x1b[31m') }}"#),
        template(
            "a list that doubles", 6, "comparing and searching exceeds",
            "{% set ns = namespace(l=(1,)) %}{% for a in range(40) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}{{ {ns.l: 1} | length }}"
        ),
        Case("generation_config.json", "an array", 4, "holds array", "[1]"),
        Case("generation_config.json", "nesting", 4, "128 levels") { repeated("[", 200_000) },
        Case("config.json", "nesting", 4, "128 levels") { repeated("[", 200_000) },
        Case("config.json", "two megabytes", 4, "at most 1048576 are read") {
            repeated(" ", 2 << 20)
        },
        Case(
            "generation_config.json", "an end beyond the vocabulary", 4,
            "generation_config.json: 'eos_token_id' is 999, but must be 0 to 255",
            #"{"eos_token_id": [2, 999]}"#),
        Case("config.json", "an end that is a text", 4, "config.json: 'eos_token_id' is \"x\"") {
            let text = String(
                decoding: Program.bytes(Program.model + "/config.json"), as: UTF8.self)
            return Array(text.replacing("\"eos_token_id\": 2", with: #""eos_token_id": "x""#).utf8)
        },
        edit(
            "layers beyond any model", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000",
            "'num_hidden_layers' is 1000000, not an integer in 1 ... 1024"),
        edit(
            "a negative size", "\"hidden_size\": 64", "\"hidden_size\": -64", "'hidden_size' is -64"
        ),
        edit(
            "a size of 2^62", "\"hidden_size\": 64", "\"hidden_size\": 4611686018427387904",
            "'hidden_size' is 4611686018427387904"),
        edit(
            "half a layer", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5",
            "'num_hidden_layers' is 2.5"),
        edit(
            "a text for a size", "\"hidden_size\": 64", "\"hidden_size\": \"64\"",
            "'hidden_size' is \"64\""),
        edit(
            "heads that do not divide", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
            "'num_key_value_heads' is 3, which does not divide the 4"),
        edit(
            "an epsilon of zero", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0",
            "'rms_norm_eps' is 0"),
        edit("a base of zero", "\"rope_theta\": 10000.0", "\"rope_theta\": 0", "'rope_theta' is 0"),
        edit("an unknown scaling", "\"rope_type\": \"llama3\"", "\"rope_type\": \"evil\"", "evil"),
        edit(
            "another nonlinearity", "\"silu\"", "\"gelu\"",
            "'hidden_act' is \"gelu\", supported: silu"),
        edit(
            "a key that changes the mathematics", "\"model_type\"",
            "\"attn_logit_softcapping\": 30, \"model_type\"",
            "'attn_logit_softcapping' is 30, which is not supported"),
    ]

    /// The good configuration with one change.
    private static func edit(
        _ name: String, _ old: String, _ new: String, _ message: String
    ) -> Case {
        Case("config.json", name, 5, message) {
            let text = String(
                decoding: Program.bytes(Program.model + "/config.json"), as: UTF8.self)
            return Array(text.replacing(old, with: new, maxReplacements: 1).utf8)
        }
    }

    @Test(arguments: others)
    func theRestEndsInOneLine(_ item: Case) {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.write(item.make(), to: "model/" + item.file)
        expectOneLine(program.run(["run", model, "hello", "-m", "1"]), item)
    }

    /// One line: what, the number, and what mends it.
    private func expectOneLine(_ result: Program.Result, _ item: Case) {
        #expect(result.code == item.code, "\(result.error)")
        #expect(result.error.hasPrefix("error: "), "\(result.error)")
        #expect(result.error.contains(item.message), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1, "\(result.error)")
        #expect(result.error.utf8.count < 2000)
        // The mend is a sentence of its own.
        #expect(result.error.contains(". "), "\(result.error)")
        #expect(result.output.isEmpty)
    }
}
