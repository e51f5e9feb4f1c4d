// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

/// Files that are wrong or meant to hurt: one error that names the place, the number and the limit.
@Suite struct HostileFileTests {
    private static let valid =
        #"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}, "#
        + #""pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}"#

    private static func model(_ fields: String) -> String {
        #"{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "model": {\#(fields)}}"#
    }

    /// What the file holds, and a word that the error must have.
    static let files: [(json: String, word: String)] = [
        ("", "byte 0"), ("{", "string"), ("[]", "'{'"), ("{}", "model"), ("nul", "'{'"),
        (valid + "x", "after"), (String(valid.dropLast(9)), "byte"),
        (model(#""merges": []"#), "model.vocab"), (model(#""vocab": {"a": 0}"#), "model.merges"),
        (model(#""vocab": {"a": 0, "b": 0}, "merges": []"#), "id 0"),
        (model(#""vocab": {"a": -1}, "merges": []"#), "-1"),
        (model(#""vocab": {"a": 1048576}, "merges": []"#), "1048575"),
        (model(#""vocab": {"a": 5000}, "merges": []"#), "5000"),
        (model(#""vocab": {"a": 99999999999999999999}, "merges": []"#), "64 bits"),
        (model(#""vocab": {"a": 1.5}, "merges": []"#), "byte"),
        (model(#""vocab": {"a": "0"}, "merges": []"#), "integer"),
        (model(#""vocab": {"a": 0}, "merges": ["a b"]"#), "merge 0"),
        (model(#""vocab": {"a": 0}, "merges": ["ab"]"#), "merge 0"),
        (model(#""vocab": {"a": 0}, "merges": [["a"]]"#), "merge 0"),
        (model(#""vocab": {"a": 0}, "merges": [["a", "a", "a"]]"#), "merge 0"),
        (model(#""vocab": {"a": 0}, "merges": [7]"#), "string"),
        (model(#""type": "Unigram", "vocab": [["a", 0.5]]"#), "Unigram"),
        (model(#""type": "WordPiece", "vocab": {"a": 0}"#), "WordPiece"),
        (model(#""vocab": {"a": 0}, "merges": [], "dropout": 0.1"#), "dropout"),
        ("{\"model\": {\"vocab\": {\"a\u{1}\": 0}, \"merges\": []}}", "control character"),
        (#"{"added_tokens": [{"id": 7}]}"#, "added token"),
        (#"{"added_tokens": [{"id": -7, "content": "a"}]}"#, "-7"),
        (#"{"added_tokens": {}}"#, "'['"),
        (#"{"x": "# + String(repeating: "[", count: 100_000), "128 levels"),
        (#"{"x": "# + String(repeating: #"{"a":"#, count: 100_000), "128 levels"),
        (#"{"normalizer": ""# + String(repeating: "a", count: 2_000_000) + #""}"#, "1048576"),
        (#"{"x": "\"#, "no end"), (#"{"x": "a"#, "no end"), (#"{"\ud800": 1}"#, "surrogate"),
    ]

    @Test(arguments: files.indices) func aWrongTokenizerJSONIsOneError(index: Int) {
        let file = Self.files[index]
        let error = #expect(throws: MartletError.self, "\(file.json.prefix(80))") {
            _ = try Tokenizer(
                TokenizerDescription(tokenizerJSON: ByteView(Array(file.json.utf8))))
        }
        #expect(
            error?.message.contains(file.word) == true, "\(file.json.prefix(80)): \(error as Any)")
    }

    @Test func everyTruncationOfATokenizerJSONIsAnError() {
        let bytes = Array(Self.valid.utf8)
        for length in 0..<bytes.count {
            #expect(throws: MartletError.self, "\(length)") {
                try TokenizerDescription(tokenizerJSON: ByteView(Array(bytes.prefix(length))))
            }
        }
    }

    @Test func damagedTokenizerJSONNeverTraps() throws {
        let golden = try Fixture.json("sentencepiece.json")
        let tokenizer = try #require(golden["tokenizer"]).fileBytes
        let bytes = tokenizer.withUnsafeBytes { Array($0) }
        var random = SeededGenerator(state: 31)
        for _ in 0..<300 {
            var damaged = bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let at = Int.random(in: 0..<damaged.count, using: &random)
                damaged[at] = UInt8.random(in: 0...255, using: &random)
            }
            check { try TokenizerDescription(tokenizerJSON: ByteView(damaged)) }
        }
    }

    @Test func damagedSentencePieceFilesNeverTrap() throws {
        let golden = try Fixture.json("sentencepiece-unknown.json")
        let bytes = try Fixture.bytes(base64: try #require(golden["model"]?.string))
        for length in stride(from: 0, to: bytes.count, by: 37) {
            check { try TokenizerDescription(sentencePiece: ByteView(Array(bytes.prefix(length)))) }
        }
        var random = SeededGenerator(state: 33)
        for _ in 0..<500 {
            var damaged = bytes
            let at = Int.random(in: 0..<damaged.count, using: &random)
            damaged[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
            check { try TokenizerDescription(sentencePiece: ByteView(damaged)) }
        }
    }

    /// Reads, and uses what was read; only `MartletError` may come out.
    private func check(_ read: () throws -> TokenizerDescription) {
        do {
            let tokenizer = try Tokenizer(read())
            let ids = tokenizer.encode(
                "the cat\u{301} 12 中 <sym>", allowSpecial: true, addSpecial: true)
            _ = tokenizer.decode(ids, skipSpecial: false)
        } catch {
            #expect(error is MartletError, "\(error)")
        }
    }

    // MARK: SentencePiece files

    private static func field(_ number: Int, _ bytes: [UInt8]) -> [UInt8] {
        varint(number << 3 | 2) + varint(bytes.count) + bytes
    }

    private static func varint(_ number: Int) -> [UInt8] {
        number < 128
            ? [UInt8(number)] : [UInt8(number & 127) | 128] + varint(number >> 7)
    }

    private static func piece(_ text: String, kind: Int = 1) -> [UInt8] {
        field(1, field(1, Array(text.utf8)) + [0x18] + varint(kind))
    }

    private static let bpe = field(2, [0x18, 2])

    static let models: [(bytes: [UInt8], word: String)] = [
        ([], "UNIGRAM"), (piece("a"), "UNIGRAM"), (field(2, [0x18, 3]), "WORD"),
        ([0x0A, 0x05, 0x41], "5 bytes"), ([0x0A], "ends early"),
        (field(1, field(1, [0xFF])), "UTF-8"), (field(1, []), "empty"),
        (piece("a", kind: 5), "UNUSED"), (piece("a", kind: 9), "unknown kind 9"),
        (piece("zz", kind: 6), "<0xNN>"), (piece("<0x41>", kind: 6) + bpe, "1 of the 256"),
        (field(1, field(1, [0x41]) + [0x15, 0, 0, 0xC0, 0x7F]), "score"),
        (field(3, field(2, [1, 2, 3])), "precompiled_charsmap"),
        (field(3, [0x28, 0]), "escape_whitespaces"), (field(2, [0xC0, 0x01, 1]), "whitespace"),
        (piece("a") + field(2, [0x18, 2, 0xC8, 0x02, 9]), "id 9"),
        ([0x0B], "wire type"), ([0x02], "number 0"),
        ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], "64 bits"),
        (piece("a") + piece(String(repeating: "b", count: 300)) + bpe, "the id 2"),
    ]

    @Test(arguments: models.indices) func aWrongSentencePieceFileIsOneError(index: Int) {
        let file = Self.models[index]
        let error = #expect(throws: MartletError.self) {
            try TokenizerDescription(sentencePiece: ByteView(file.bytes))
        }
        #expect(error?.message.contains(file.word) == true, "\(error as Any)")
    }
}
