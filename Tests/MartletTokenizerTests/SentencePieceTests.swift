// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

@Suite struct SentencePieceTests {
    @Test(arguments: [
        "sentencepiece", "sentencepiece-unknown", "sentencepiece-symbols",
        "sentencepiece-symbols-trimmed",
    ])
    func equalsTheReference(file: String) throws {
        let golden = try TokenizerGolden(sentencePiece: file)
        #expect(golden.texts.count >= 200)
        for (text, ids) in zip(golden.texts, golden.ids) {
            let mine = golden.tokenizer.encode(text, allowSpecial: false, addSpecial: false)
            #expect(mine == ids, "\(text.debugDescription)")
        }
    }

    @Test func decodesAndStreams() throws {
        let golden = try TokenizerGolden(sentencePiece: "sentencepiece")
        for (ids, text) in zip(golden.ids, golden.decoded) {
            #expect(
                Array(golden.tokenizer.decode(ids).unicodeScalars) == Array(text.unicodeScalars))
            var stream = StreamingDetokenizer(golden.tokenizer)
            let pieces = ids.map { stream.push($0) }
            // Byte tokens give no half characters.
            #expect(pieces.allSatisfy { !$0.unicodeScalars.contains("\u{FFFD}") })
            #expect(
                Array((pieces.joined() + stream.finish()).unicodeScalars)
                    == Array(text.unicodeScalars))
        }
    }

    @Test func comesBackFromItsBytes() throws {
        for file in ["sentencepiece", "sentencepiece-unknown"] {
            let description = try TokenizerGolden(sentencePiece: file).tokenizer.description
            let back = try TokenizerDescription(serialized: ByteView(description.serialized()))
            #expect(back == description)
        }
    }

    @Test func flippedBitsNeverTrap() throws {
        let bytes = try TokenizerGolden(sentencePiece: "sentencepiece-unknown").tokenizer
            .description.serialized()
        var random = SeededGenerator(state: 41)
        var failureCount = 0
        for _ in 0..<1500 {
            var damaged = bytes
            let at = Int.random(in: 0..<bytes.count, using: &random)
            damaged[at] ^= 1 << UInt8.random(in: 0...7, using: &random)
            do {
                let tokenizer = try Tokenizer(
                    TokenizerDescription(serialized: ByteView(damaged)))
                _ = tokenizer.encode("the cat 12 é 中<sym>", allowSpecial: true, addSpecial: true)
            } catch {
                #expect(error is MartletError)
                failureCount += 1
            }
        }
        #expect(failureCount > 100)
    }

    /// The dummy prefix: one space before a text, or before each part between control tokens.
    @Test func putsTheSpaceWhereItBelongs() throws {
        let legacy = try TokenizerGolden("sentencepiece", "llama2").tokenizer
        let first = try TokenizerGolden("sentencepiece", "first").tokenizer
        let never = try TokenizerGolden("sentencepiece", "gemma").tokenizer
        func spaces(_ tokenizer: Tokenizer, _ text: String) -> String {
            let ids = tokenizer.encode(text, allowSpecial: true, addSpecial: false)
            return String(decoding: ids.flatMap { Array(tokenizer.bytes(of: $0)) }, as: UTF8.self)
        }
        #expect(spaces(legacy, "a</s>b") == " a</s> b")
        #expect(spaces(first, "a</s>b") == " a</s>b")
        #expect(spaces(first, "</s>b") == "</s>b")
        #expect(spaces(first, " a") == " a")
        #expect(spaces(legacy, " a") == "  a")
        #expect(spaces(never, "a</s>b") == "a</s>b")
        #expect(spaces(legacy, "") == "")
        let ids = legacy.encode("a", allowSpecial: true, addSpecial: false)
        #expect(legacy.decode(ids) == "a")
        #expect(legacy.decode(ids + ids) == "a a")
    }

    /// Tokens that a fine-tune added beside its `tokenizer.model`, with a gap between their ids.
    @Test func addedTokensFollowThePieces() throws {
        let golden = try Fixture.json("sentencepiece.json")
        let model = ByteView(try Fixture.bytes(base64: try #require(golden["model"]?.string)))
        let count = try TokenizerDescription(sentencePiece: model).vocabularySize
        let config: JSONValue = [
            "legacy": false, "eos_token": "<|im_end|>",
            "added_tokens_decoder": .object(
                JSONObject([
                    ("\(count + 2)", ["content": "<|im_end|>", "special": true]),
                    ("\(count)", ["content": "<|im_start|>", "special": true]),
                    ("\(count + 3)", ["content": "<tool>", "special": false]),
                    ("2", ["content": "</s>", "special": true]),
                ])),
        ]
        let tokenizer = try Tokenizer(
            TokenizerDescription(sentencePiece: model, config: config))
        #expect(tokenizer.vocabularySize == count + 4)
        #expect(tokenizer.eosID == count + 2)
        let plain = try Tokenizer(
            TokenizerDescription(sentencePiece: model, config: ["legacy": false]))
        func ids(_ tokenizer: Tokenizer, _ text: String, isTrusted: Bool = true) -> [Int] {
            tokenizer.encode(text, allowSpecial: isTrusted, addSpecial: false)
        }
        let found = ids(tokenizer, "<|im_start|>hi<tool><|im_end|>")
        #expect(found.first == count && Array(found.suffix(2)) == [count + 3, count + 2])
        #expect(tokenizer.decode(found, skipSpecial: false) == "<|im_start|>hi<tool><|im_end|>")
        #expect(tokenizer.decode(found) == "hi<tool>")
        // A user's text is that of the plain vocabulary.
        #expect(
            ids(tokenizer, "<|im_start|>hi", isTrusted: false)
                == ids(plain, "<|im_start|>hi", isTrusted: false))
        #expect(ids(tokenizer, "the cat") == ids(plain, "the cat"))
    }

    @Test(arguments: [
        ("x", #"added token 'x' has no id of 0 or more"#), ("-1", "has no id of 0 or more"),
        ("9999999", "added token 9999999 comes after"),
    ]) func addedTokensWithoutAPlaceAreRefused(key: String, message: String) throws {
        let golden = try Fixture.json("sentencepiece.json")
        let model = ByteView(try Fixture.bytes(base64: try #require(golden["model"]?.string)))
        let decoder = JSONObject([(key, ["content": "<a>", "special": true])])
        let error = #expect(throws: MartletError.self) {
            try TokenizerDescription(
                sentencePiece: model, config: ["added_tokens_decoder": .object(decoder)])
        }
        #expect(error?.code == .corrupt)
        #expect(error?.description.contains(message) == true, "\(error?.description ?? "")")
    }

    @Test func bytesThatAreNoTextComeBack() throws {
        let tokenizer = try TokenizerGolden(sentencePiece: "sentencepiece").tokenizer
        var random = SeededGenerator(state: 15)
        let lead: [UInt8] = [
            0x41, 0x80, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xED, 0xA0, 0xF0, 0x9F, 0xFF,
        ]
        for _ in 0..<500 {
            let bytes = (0..<Int.random(in: 1...12, using: &random)).map { _ in
                lead.randomElement(using: &random) ?? 0
            }
            let ids = tokenizer.encode(bytes: bytes, allowSpecial: false, addSpecial: false)
            #expect(ids.flatMap { Array(tokenizer.bytes(of: $0)) } == [0x20] + bytes)
            var stream = StreamingDetokenizer(tokenizer)
            let text = ids.map { stream.push($0) }.joined() + stream.finish()
            #expect(text == tokenizer.decode(ids))
        }
    }

    @Test func userTextNeverBecomesAControlToken() throws {
        let tokenizer = try TokenizerGolden("sentencepiece", "llama2").tokenizer
        let end = try #require(tokenizer.tokenID(for: "</s>"))
        let ids = tokenizer.encode(
            [
                TextSegment("say </s>", isTrusted: false), TextSegment("</s>", isTrusted: true),
                TextSegment("</s>", isTrusted: false),
            ], addSpecial: false)
        #expect(ids.filter { $0 == end }.count == 1)
        #expect(tokenizer.decode(ids, skipSpecial: false) == "say </s></s> </s>")
    }

    /// Pieces are cut where no token joins: the same ids as merging over the whole text.
    @Test func cuttingChangesNothing() throws {
        let tokenizer = try TokenizerGolden(sentencePiece: "sentencepiece").tokenizer
        let description = tokenizer.description
        let added = Set(description.addedTokens.map(\.id))
        let bytes = Set(description.byteIDs.map { Int($0) })
        var score: [String: (id: Int, score: Float)] = [:]
        for id in 0..<description.vocabularySize where !added.contains(id) && !bytes.contains(id) {
            let text = String(decoding: description.bytes(of: id), as: UTF8.self)
            score[text] = (id, description.scores[id])
        }
        var random = SeededGenerator(state: 21)
        let words = ["the ", "cat", "  ", "12", "é", "of", "ing ", "\n", "—", "x", "中", "a"]
        for _ in 0..<100 {
            let text = (0..<20).map { _ in words.randomElement(using: &random) ?? "" }.joined()
            var parts = (" " + text).unicodeScalars.map { String($0) }
            while true {
                var best: (at: Int, score: Float)?
                for at in 0..<parts.count - 1 {
                    if let found = score[parts[at] + parts[at + 1]],
                        found.score > best?.score ?? -.infinity
                    {
                        best = (at, found.score)
                    }
                }
                guard let best else { break }
                parts.replaceSubrange(
                    best.at...best.at + 1, with: [parts[best.at] + parts[best.at + 1]])
            }
            let expected = parts.flatMap { part in
                score[part].map { [$0.id] } ?? part.utf8.map { Int(description.byteIDs[Int($0)]) }
            }
            #expect(tokenizer.encode(text, allowSpecial: false, addSpecial: false) == expected)
        }
    }
}
