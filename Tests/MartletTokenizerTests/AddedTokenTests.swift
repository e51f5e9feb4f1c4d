// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

/// Folders whose added tokens stand beside the tokenizer, and those of `vocab.json` and `merges.txt`.
@Suite struct AddedTokenTests {
    private static let golden = Result { try Fixture.json("added-tokens.json") }

    private static func description(_ folder: JSONValue) throws -> TokenizerDescription {
        let tokenizer = try #require(golden.get()["tokenizer"])
        var config = try #require(folder["config"]?.object)
        if let older = folder["added_tokens"]?.object {
            config["added_tokens.json"] = .object(older)
        }
        if folder["form"]?.string == "json" {
            return try TokenizerDescription(
                tokenizerJSON: tokenizer.fileBytes, config: .object(config))
        }
        return try TokenizerDescription(
            vocabulary: try #require(tokenizer["model"]?["vocab"]).fileBytes, merges: merges(),
            config: .object(config))
    }

    private static func merges(_ ending: String = "\n") throws -> ByteView {
        let merges = try #require(golden.get()["tokenizer"]?["model"]?["merges"]?.array)
        let lines = merges.map { ($0.array ?? []).compactMap(\.string).joined(separator: " ") }
        let text = (["#version: 0.2"] + lines).map { $0 + ending }.joined()
        return ByteView(Array(text.utf8))
    }

    @Test func equalsTheReference() throws {
        let golden = try Self.golden.get()
        let texts = try #require(golden["texts"]?.array).compactMap(\.string)
        let folders = try #require(golden["folders"]?.array)
        #expect(texts.count == 600 && folders.count == 39)
        for folder in folders {
            let name = folder["name"]?.string ?? "?"
            let form = folder["form"]?.string ?? "?"
            let tokenizer = try Tokenizer(Self.description(folder))
            for (text, ids) in zip(texts, try #require(folder["ids"]?.array)) {
                let mine = tokenizer.encode(text, allowSpecial: true, addSpecial: true)
                let line = mine.map(String.init).joined(separator: " ")
                #expect(line == ids.string, "\(form) \(name): \(text.debugDescription)")
            }
            #expect(tokenizer.vocabularySize == folder["size"]?.int, "\(form) \(name)")
            let roles = folder["special"]
            #expect(tokenizer.bosID == roles?["bos_token"]?.int, "\(form) \(name)")
            #expect(tokenizer.eosID == roles?["eos_token"]?.int, "\(form) \(name)")
            let back = try TokenizerDescription(
                serialized: ByteView(tokenizer.description.serialized()))
            #expect(back == tokenizer.description)
        }
    }

    /// A control token of the tokenizer stays one, whatever stands beside it.
    @Test func userTextNeverBecomesAnAddedControlToken() throws {
        let config: JSONValue = [
            "added_tokens_decoder": [
                "400": ["content": "<a>", "special": true],
                "1": ["content": "</s>", "special": false],
            ]
        ]
        let folder: JSONValue = ["form": "json", "config": config]
        let tokenizer = try Tokenizer(Self.description(folder))
        let trusted = tokenizer.encode("<a></s>", allowSpecial: true, addSpecial: false)
        #expect(trusted == [tokenizer.vocabularySize - 1, 1])
        let user = tokenizer.encode("<a></s>", allowSpecial: false, addSpecial: false)
        #expect(user.count > 4 && !user.contains(1) && !user.contains(trusted[0]))
        #expect(tokenizer.decode(trusted) == "")
    }

    static let wrongEntries: [(key: String, value: JSONValue, word: String)] = [
        ("added_tokens_decoder", ["x": ["content": "<a>"]], "added token 'x' has no id of 0"),
        ("added_tokens_decoder", ["-1": ["content": "<a>"]], "added token '-1' has no id of 0"),
        ("added_tokens_decoder", ["7": ["special": true]], "added token '7' has no content"),
        (
            "added_tokens.json", ["<a>": "7"],
            #"added_tokens.json: '<a>' has no id of 0 or more but "7""#
        ),
        ("added_tokens.json", ["<a>": -7], "'<a>' has no id of 0 or more but -7"),
    ]

    @Test(arguments: wrongEntries) func wrongEntriesAreRefused(
        key: String, value: JSONValue, word: String
    ) throws {
        let folder: JSONValue = ["form": "json", "config": .object(JSONObject([(key, value)]))]
        let error = #expect(throws: MartletError.self) { try Self.description(folder) }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains(word) == true, "\(error as Any)")
    }

    @Test func tooManyEntriesAreRefused() throws {
        let entries = (0..<70_000).map { ("\($0)", ["content": .string("<\($0)>")] as JSONValue) }
        let config: JSONValue = ["added_tokens_decoder": .object(JSONObject(entries))]
        let error = #expect(throws: MartletError.self) {
            try Self.description(["form": "json", "config": config])
        }
        #expect(error?.code == .limitExceeded)
        #expect(error?.message.contains("65536") == true, "\(error as Any)")
    }

    // MARK: vocab.json and merges.txt

    static let classes: [(config: JSONValue, modelType: String?, word: String?)] = [
        (["tokenizer_class": "GPT2TokenizerFast"], nil, nil), ([:], "gpt2", nil),
        ([:], "qwen2", nil), ([:], "qwen3", nil),
        (["tokenizer_class": "RobertaTokenizer"], "gpt2", "class 'RobertaTokenizer'"),
        (["tokenizer_class": "PreTrainedTokenizerFast"], nil, "'PreTrainedTokenizerFast'"),
        ([:], "llama", "no class named"), ([:], nil, "GPT2Tokenizer, Qwen2Tokenizer"),
        (["tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": true], nil, "add_prefix_space"),
    ]

    @Test(arguments: classes) func theClassSaysHowTextIsCut(
        config: JSONValue, modelType: String?, word: String?
    ) throws {
        let vocabulary = ByteView(Array(#"{"a": 0, "b": 1, "ab": 2}"#.utf8))
        func read() throws -> TokenizerDescription {
            try TokenizerDescription(
                vocabulary: vocabulary, merges: ByteView(Array("a b\n".utf8)), config: config,
                modelType: modelType)
        }
        if let word {
            let error = #expect(throws: MartletError.self) { try read() }
            #expect(error?.code == .unsupported)
            #expect(error?.message.contains(word) == true, "\(error as Any)")
        } else {
            let tokenizer = try Tokenizer(read())
            #expect(tokenizer.encode("abab", allowSpecial: false, addSpecial: false) == [2, 2])
            #expect(tokenizer.eosID == 3)
        }
    }

    static let wrongFiles: [(vocabulary: String, merges: String, word: String)] = [
        ("", "", "vocab.json: expected '{'"), (#"{"a": 0"#, "", "vocab.json"),
        (#"{"a": 0} x"#, "", "vocab.json: text after"),
        (#"{"a": 0, "b": 0}"#, "", "vocab.json: two tokens have the id 0"),
        (#"{"a": 9000}"#, "", "vocab.json: the greatest id is 9001"),
        (#"{"a": -1}"#, "", "vocab.json: id -1"),
        (#"{"a": 0}"#, "a\n", "merges.txt: merge 0"),
        (#"{"a": 0, "aa": 1}"#, "a a\n\na a\n", "merges.txt: merge 1"),
        (#"{"a": 0, "aa": 1}"#, "a a a\n", "merges.txt: merge 0"),
        (#"{"a": 0}"#, "#version: 0.2\na a\n", "merge 0"),
    ]

    @Test(arguments: wrongFiles) func aWrongFileIsOneError(
        vocabulary: String, merges: String, word: String
    ) throws {
        let error = #expect(throws: MartletError.self) {
            try TokenizerDescription(
                vocabulary: ByteView(Array(vocabulary.utf8)),
                merges: ByteView(Array(merges.utf8)), config: nil, modelType: "gpt2")
        }
        #expect(error?.message.contains(word) == true, "\(error as Any)")
    }

    @Test func linesMayEndAsOnWindows() throws {
        let vocabulary = try #require(Self.golden.get()["tokenizer"]?["model"]?["vocab"]).fileBytes
        func read(_ ending: String) throws -> TokenizerDescription {
            try TokenizerDescription(
                vocabulary: vocabulary, merges: Self.merges(ending), config: nil, modelType: "gpt2")
        }
        #expect(try read("\r\n") == read("\n"))
    }
}
