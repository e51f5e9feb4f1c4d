// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

@Suite struct TokenizerDescriptionTests {
    private func view(_ bytes: [UInt8]) -> ByteView { ByteView(bytes) }

    @Test(arguments: TokenizerTests.cases) func comesBackFromItsBytes(file: String, kind: String)
        throws
    {
        let tokenizer = try TokenizerGolden(file, kind).tokenizer
        var description = tokenizer.description
        description.chatTemplate = "{{ 'é' }}"
        let bytes = description.serialized()
        let back = try TokenizerDescription(serialized: view(bytes))
        #expect(back == description)
        #expect(back.serialized() == bytes)
    }

    @Test func everyTruncationIsAnError() throws {
        let bytes = try small().serialized()
        for length in 0..<bytes.count {
            #expect(throws: MartletError.self) {
                try TokenizerDescription(serialized: view(Array(bytes.prefix(length))))
            }
        }
    }

    @Test func flippedBitsNeverTrap() throws {
        let bytes = try small().serialized()
        var failureCount = 0
        for bit in 0..<bytes.count * 8 {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            do {
                let tokenizer = try Tokenizer(TokenizerDescription(serialized: view(damaged)))
                let ids = tokenizer.encode("the <a> cab 12", allowSpecial: true, addSpecial: true)
                _ = tokenizer.decode(ids, skipSpecial: false)
            } catch {
                #expect(error is MartletError)
                failureCount += 1
            }
        }
        #expect(failureCount > bytes.count)
    }

    private func small() throws -> TokenizerDescription {
        try TokenizerDescription(
            ggufTokens: ["a", "b", "c", "Ġ", "ab", "cab", "Ġcab", "<a>", "<u>"],
            merges: ["a b", "c ab", "Ġ cab"], tokenTypes: [1, 1, 1, 1, 1, 1, 1, 3, 4], pre: "gpt-2",
            bosID: 7,
            eosID: 7, addBOS: true, chatTemplate: "x")
    }

    @Test func readsGGUFData() throws {
        let tokenizer = try Tokenizer(small())
        #expect(tokenizer.encode("cab cab", allowSpecial: false, addSpecial: true) == [7, 5, 6])
        #expect(tokenizer.encode("<a>ab<u>", allowSpecial: true, addSpecial: false) == [7, 4, 8])
        #expect(tokenizer.decode([7, 5, 6]) == "cab cab")
        #expect(tokenizer.decode([7, 5, 99, -1], skipSpecial: false) == "<a>cab")
        #expect(tokenizer.bosID == 7)
        #expect(tokenizer.stopIDs == [7])
        #expect(tokenizer.tokenID(for: "<u>") == 8)
    }

    @Test func refusesWhatItDoesNotKnow() throws {
        let error = #expect(throws: MartletError.self) {
            try TokenizerDescription(ggufTokens: ["a"], merges: [], tokenTypes: [], pre: "newest")
        }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains("newest") == true)
        let model = #expect(throws: MartletError.self) {
            try TokenizerDescription(
                ggufTokens: ["a"], merges: [], tokenTypes: [], model: "t5", pre: "gpt-2")
        }
        #expect(model?.message.contains("t5") == true)
        for merge in ["a", "", " ", "a z"] {
            #expect(throws: MartletError.self) {
                try TokenizerDescription(
                    ggufTokens: ["a", "b"], merges: [merge], tokenTypes: [], pre: "gpt-2")
            }
        }
        #expect(throws: MartletError.self) {
            try TokenizerDescription(
                ggufTokens: ["a"], merges: [], tokenTypes: [1, 1], pre: "gpt-2")
        }
        #expect(throws: MartletError.self) {
            try TokenizerDescription(
                ggufTokens: ["a"], merges: [], tokenTypes: [], pre: "gpt-2", bosID: 4)
        }
    }

    static let unknown: [(String, JSONValue, String)] = [
        ("normalizer", ["type": "Mystery"], "Mystery"),
        ("pre_tokenizer", ["type": "Metaspace"], "Metaspace"),
        ("pre_tokenizer", nil, "(none)"), ("post_processor", ["type": "Roberta"], "Roberta"),
        ("decoder", ["type": "WordPiece"], "WordPiece"), ("model", ["type": "Unigram"], "Unigram"),
    ]

    @Test(arguments: unknown) func namesUnknownComponents(
        key: String, value: JSONValue, name: String
    ) throws {
        var root = try JSONValue.parse(
            #"""
            {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}}
            """#)
        let tokenizer = try Tokenizer(TokenizerDescription(tokenizerJSON: root.fileBytes))
        #expect(tokenizer.encode("abab", allowSpecial: false, addSpecial: false) == [2, 2])
        var members = JSONObject()
        for member in root.object?.members ?? [] where member.key != key {
            members[member.key] = member.value
        }
        members[key] = value
        root = .object(members)
        let error = #expect(throws: MartletError.self) {
            try TokenizerDescription(tokenizerJSON: root.fileBytes)
        }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains(name) == true)
    }
}
