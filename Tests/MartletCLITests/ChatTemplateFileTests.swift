// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// The chat template counts wherever a model keeps it: as a text, in a list of named ones, in a file of its own.
@Suite struct ChatTemplateFileTests {
    private static let template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"

    private func write(_ program: Program, _ name: String, _ text: String) {
        program.write(Array(text.utf8), to: "model/" + name)
    }

    @Test(arguments: [
        ("a text", #"{"eos_token": "<end>", "chat_template": "TEMPLATE"}"#, false),
        (
            "a list",
            #"{"eos_token": "<end>", "chat_template": [{"name": "tool_use", "template": "x"}, "#
                + #"{"name": "default", "template": "TEMPLATE"}]}"#, false
        ),
        ("a file", #"{"eos_token": "<end>"}"#, true),
        ("a file before a text", #"{"eos_token": "<end>", "chat_template": "x"}"#, true),
    ]) func isFoundInEveryPlace(name: String, config: String, isFile: Bool) throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        write(
            program, "tokenizer_config.json", config.replacing("TEMPLATE", with: Self.template))
        if isFile { write(program, "chat_template.jinja", Self.template) }
        let result = program.run(["run", model, "hello", "-m", "1", "--output", "json"])
        #expect(result.code == 0, "\(result.error)")
        let json = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: name)
        // One token a byte: [hello]
        #expect(json.array?.first?["prompt tokens"]?.int == 7, "\(result.output)")
    }

    /// What transformers gives every template.
    @Test func variablesAreThoseOfTransformers() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        write(
            program, "chat_template.jinja",
            "{% if tools is none and documents is none %}{{ strftime_now('%Y') }}{% endif %}")
        let result = program.run(["run", model, "hello", "-m", "1", "--output", "json"])
        #expect(result.code == 0, "\(result.error)")
        let json = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: "run")
        #expect(json.array?.first?["prompt tokens"]?.int == 4, "\(result.output)")
    }

    @Test(arguments: ["5", "[]", #"[{"name": "tool_use", "template": "x"}]"#])
    func anythingElseIsRefused(value: String) {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        write(program, "tokenizer_config.json", #"{"chat_template": \#(value)}"#)
        let result = program.run(["run", model, "hello", "-m", "1"])
        #expect(result.code == 5, "\(result.error)")
        #expect(result.error.contains("'chat_template' is neither a text nor a list"))
    }

    /// Names of special tokens stand in a file of their own beside older tokenizers.
    @Test func specialTokensMapIsRead() throws {
        let program = Program()
        defer { program.remove() }
        let model = program.makeChatModel()
        program.remove("model/tokenizer_config.json")
        write(program, "special_tokens_map.json", #"{"eos_token": {"content": "<end>"}}"#)
        write(program, "chat_template.jinja", "{{ eos_token }}{{ messages[0].content }}")
        let result = program.run(["run", model, "hello", "-m", "1", "--output", "json"])
        #expect(result.code == 0, "\(result.error)")
        let json = try JSONValue.parse(ByteView(Array(result.output.utf8)), name: "run")
        #expect(json.array?.first?["prompt tokens"]?.int == 6, "\(result.output)")
    }
}
