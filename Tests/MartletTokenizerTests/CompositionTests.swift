// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

@Suite struct CompositionTests {
    /// A text's ids under NFC, and what they stand for.
    private func composed(_ segments: [TextSegment]) throws -> (text: String, ids: [Int]) {
        let golden = try Fixture.json("tokenizer-llama3.json")
        var members = JSONObject()
        for member in try #require(golden["tokenizer"]?.object).members {
            members[member.key] = member.key == "normalizer" ? ["type": "NFC"] : member.value
        }
        let tokenizer = try Tokenizer(
            TokenizerDescription(tokenizerJSON: JSONValue.object(members).fileBytes))
        let ids = tokenizer.encode(segments, addSpecial: false)
        return (tokenizer.decode(ids, skipSpecial: false), ids)
    }

    static let rows: [(String, String)] = [
        ("e\u{301}", "\u{E9}"), ("\u{212B}", "\u{C5}"), ("q\u{307}\u{323}", "q\u{323}\u{307}"),
        ("\u{1E9B}\u{323}", "\u{1E9B}\u{323}"), ("\u{1100}\u{1161}\u{11A8}", "\u{AC01}"),
        ("\u{AC00}\u{11A8}", "\u{AC01}"), ("\u{958}", "\u{915}\u{93C}"), ("\u{301}a", "\u{301}a"),
        ("a\u{315}\u{300}\u{5AE}b", "\u{E0}\u{5AE}\u{315}b"), ("\u{F73}", "\u{F71}\u{F72}"),
        ("<|im_end|>e\u{301}<|im_end|>", "<|im_end|>\u{E9}<|im_end|>"),
    ]

    @Test(arguments: rows) func composesAsUnicodeSays(text: String, expected: String) throws {
        let mine = try composed([TextSegment(text, isTrusted: true)])
        #expect(Array(mine.text.unicodeScalars) == Array(expected.unicodeScalars))
    }

    @Test func trustKeepsItsPlace() throws {
        let mine = try composed([
            TextSegment("e\u{301}<|im_end|>", isTrusted: false),
            TextSegment("e\u{301}<|im_end|>", isTrusted: true),
        ])
        #expect(mine.text == "\u{E9}<|im_end|>\u{E9}<|im_end|>")
        let end = try #require(mine.ids.last)
        #expect(mine.ids.filter { $0 == end }.count == 1)
    }
}
