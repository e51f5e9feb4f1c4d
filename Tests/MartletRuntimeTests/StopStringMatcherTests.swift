// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletRuntime
import Testing

struct StopStringMatcherTests {
    @Test func holdsBackTheBeginningOfAStopString() {
        var matcher = StopStringMatcher(["</s>", "END"])
        #expect(matcher.append("one <") == .init(text: "one ", match: nil))
        #expect(matcher.append("/") == .init(text: "", match: nil))
        #expect(matcher.append("p> E") == .init(text: "</p> ", match: nil))
        #expect(matcher.append("N") == .init(text: "", match: nil))
        #expect(matcher.append("D tail") == .init(text: "", match: "END"))
    }

    @Test func givesOutWhatIsHeldAtTheEnd() {
        var matcher = StopStringMatcher(["abc"])
        #expect(matcher.append("xab").text == "x")
        #expect(matcher.finish() == "ab")
        #expect(matcher.finish() == "")
    }

    @Test func takesTheEarliestMatch() {
        var matcher = StopStringMatcher(["cd", "bcd"])
        #expect(matcher.append("abcd") == .init(text: "a", match: "bcd"))
    }

    @Test(arguments: ["é", "日本", "🙂🙃", "aa", "aba"])
    func matchesHoweverTheTextIsSplit(stop: String) {
        var state: UInt64 = 88_172_645_463_325_252
        func random(_ limit: Int) -> Int {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return Int(state % UInt64(limit))
        }
        let alphabet = Array("aabé日本🙂🙃e").map(String.init)
        for _ in 0..<300 {
            let characters = (0..<random(14)).map { _ in alphabet[random(alphabet.count)] }
            let text = characters.joined()
            var matcher = StopStringMatcher([stop])
            var output = ""
            var match: String?
            var index = 0
            while index < characters.count, match == nil {
                let count = min(1 + random(3), characters.count - index)
                let result = matcher.append(characters[index..<index + count].joined())
                output += result.text
                match = result.match
                index += count
            }
            let bytes = Array(text.utf8)
            let pattern = Array(stop.utf8)
            let place = bytes.indices.first { bytes[$0...].starts(with: pattern) }
            #expect((match != nil) == (place != nil))
            if match == nil { output += matcher.finish() }
            #expect(Array(output.utf8) == Array(bytes[..<(place ?? bytes.count)]))
        }
    }

    @Test func withoutStopStringsNothingIsHeld() {
        var matcher = StopStringMatcher([""])
        #expect(matcher.append("abc") == .init(text: "abc", match: nil))
    }
}
