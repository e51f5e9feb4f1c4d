// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Program {
    /// The tiny model with a tokenizer of single bytes and a chat template, in a folder of its own.
    ///
    /// Its answers mean nothing, but they are always the same.
    func makeChatModel() -> String {
        makeFolder("model")
        for name in ["config.json", "model.safetensors"] {
            write(Self.bytes(Self.model + "/" + name), to: "model/" + name)
        }
        // Bytes as byte-level BPE writes them: the printable ones as they are, others from U+0100.
        var next: UInt32 = 0x100
        let vocabulary = (0..<256).map { byte -> String in
            let isPrintable =
                (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
            let value = isPrintable ? UInt32(byte) : next
            if !isPrintable { next += 1 }
            let scalar = Unicode.Scalar(value).map(Character.init) ?? "?"
            let escaped = scalar == "\"" || scalar == "\\" ? "\\\(scalar)" : "\(scalar)"
            return "\"\(escaped)\": \(byte)"
        }
        let tokenizer = """
            {"version": "1.0", "added_tokens": [{"id": 1, "content": "<end>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
            "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": true}, "post_processor": null,
            "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab":
            {\(vocabulary.filter { !$0.hasSuffix(": 1") }.joined(separator: ", ")), "<end>": 1},
            "merges": []}}
            """
        let template =
            "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>\\n{% endfor %}"
            + "{% if add_generation_prompt %}assistant: {% endif %}"
        write(Array(tokenizer.utf8), to: "model/tokenizer.json")
        write(
            Array("{\"eos_token\": \"<end>\", \"chat_template\": \"\(template)\"}".utf8),
            to: "model/tokenizer_config.json")
        return folder + "/model"
    }

    /// A tiny Baichuan with a SentencePiece file of letters, its roles told apart by tokens 3 and 4.
    ///
    /// - Parameter fixture: `baichuan-7b`, or `baichuan2-7b` with its weights in two files.
    func makeRoleChatModel(_ fixture: String) -> String {
        makeFolder("model")
        let source = Self.fixtures + "/" + fixture
        for name in Self.list(source) where name != "golden.safetensors" {
            write(Self.bytes(source + "/" + name), to: "model/" + name)
        }
        func field(_ number: UInt8, _ content: [UInt8]) -> [UInt8] {
            [number << 3 | 2, UInt8(content.count)] + content
        }
        let letters = (UInt8(ascii: "a")...UInt8(ascii: "z")).map {
            String(decoding: [$0], as: UTF8.self)
        }
        let roles = ["<reserved_106>", "<reserved_107>"]
        var pieces = ["<unk>", "<s>", "</s>"] + roles + ["\u{2581}"] + letters
        while pieces.count < 64 { pieces.append("x\(pieces.count)") }
        var model: [UInt8] = []
        for (id, piece) in pieces.enumerated() {
            let kind: UInt8 = id == 0 ? 2 : id < 5 ? 3 : 1
            model += field(1, field(1, Array(piece.utf8)) + [0x18, kind])
        }
        // BPE; no space is put before a text, none is taken away.
        model += field(2, [0x18, 2]) + field(3, [0x18, 0, 0x20, 0])
        write(model, to: "model/tokenizer.model")
        write(Array(#"{"add_bos_token": false}"#.utf8), to: "model/tokenizer_config.json")
        write(
            Array(#"{"user_token_id": 3, "assistant_token_id": 4, "eos_token_id": 2}"#.utf8),
            to: "model/generation_config.json")
        return folder + "/model"
    }

    /// The published demo model, if this machine has it.
    static let demoModel: String? = {
        let home = variable("HF_HOME") ?? (variable("HOME") ?? "") + "/.cache/huggingface"
        let folder = home + "/hub/models--QuantFactory--SmolLM2-135M-Instruct-GGUF/snapshots"
        for snapshot in list(folder) {
            let path = "\(folder)/\(snapshot)/SmolLM2-135M-Instruct.Q4_1.gguf"
            if !list("\(folder)/\(snapshot)").isEmpty, exists(path) { return path }
        }
        return nil
    }()
}
