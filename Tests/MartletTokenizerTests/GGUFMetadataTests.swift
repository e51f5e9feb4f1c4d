// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

extension JSONValue: GGUFMetadataValue {}

/// Metadata of a GGUF file that lack a key, or have one of another type.
@Suite struct GGUFMetadataTests {
    private static let valid: [String: JSONValue] = [
        "model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab"], "merges": ["a b"],
        "token_type": [1, 1, 1], "bos_token_id": 0, "add_bos_token": true,
    ]

    private static func read(_ fields: [String: JSONValue]) throws -> TokenizerDescription? {
        var metadata: [String: JSONValue] = [:]
        for (name, value) in fields { metadata["tokenizer.ggml.\(name)"] = value }
        return try TokenizerDescription(gguf: metadata)
    }

    @Test func readsMetadata() throws {
        let tokenizer = try Tokenizer(#require(try Self.read(Self.valid)))
        #expect(tokenizer.encode("abb", allowSpecial: false, addSpecial: true) == [0, 2, 1])
        #expect(try Self.read(["model": "gpt2"]) == nil)
        var fields = Self.valid
        fields["merges"] = []
        let plain = try Tokenizer(#require(try Self.read(fields)))
        #expect(plain.encode("ab", allowSpecial: false, addSpecial: false) == [0, 1])
        let llama = try Self.read(["model": "llama", "tokens": ["▁a"], "scores": [-1.5]])
        #expect(llama?.merges == [])
    }

    static let wrong: [(key: String, value: JSONValue?, word: String)] = [
        ("merges", nil, "merges is missing; the tokenizer model 'gpt2' needs it"),
        ("merges", "a b", "merges is a string, an array of strings is due"),
        ("merges", [1, 2], "merges has an integer as element 0, an array of strings is due"),
        ("tokens", [1, 2, 3], "tokens has an integer as element 0, an array of strings is due"),
        ("tokens", [1.5], "tokens has a number as element 0"),
        ("tokens", ["a", ["b"]], "tokens has an array as element 1"),
        ("tokens", "abc", "tokens is a string"), ("tokens", 3, "tokens is an integer"),
        ("tokens", [], "tokens has no elements"),
        ("token_type", ["1", "1", "1"], "token_type has a string as element 0"),
        ("scores", [true, 1, 1], "scores has a boolean as element 0, an array of numbers is due"),
        ("model", 7, "model is an integer, a string is due"), ("pre", true, "pre is a boolean"),
        ("bos_token_id", "0", "bos_token_id is a string, an integer is due"),
        ("add_bos_token", 1, "add_bos_token is an integer, a boolean is due"),
    ]

    @Test(arguments: wrong) func aWrongKeyIsNamed(key: String, value: JSONValue?, word: String) {
        var fields = Self.valid
        fields[key] = value
        let error = #expect(throws: MartletError.self) { try Self.read(fields) }
        #expect(error?.code == .corrupt)
        #expect(
            error?.message.contains("tokenizer.ggml." + word) == true, "\(key): \(error as Any)")
        #expect(error?.context["key"] == "tokenizer.ggml.\(key)")
    }
}
