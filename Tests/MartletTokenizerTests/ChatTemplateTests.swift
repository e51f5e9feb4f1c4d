// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

@Suite struct ChatTemplateTests {
    private func text(_ segments: [TextSegment]) -> [Unicode.Scalar] {
        Array(segments.map(\.text).joined().unicodeScalars)
    }

    static let families = [
        "smollm2", "chatml", "chatml-lines", "macros", "llama2", "llama3", "qwen2.5", "mistral",
    ]

    @Test(arguments: families) func rendersAsTheReference(name: String) throws {
        let golden = try Fixture.json("templates.json")
        let template = try ChatTemplate(source: try #require(golden["templates"]?[name]?.string))
        let renders = (golden["renders"]?.array ?? []).filter { $0["template"]?.string == name }
        #expect(renders.count == 32)
        for render in renders {
            let index = try #require(render["conversation"]?.int)
            let messages = try #require(golden["conversations"]?[index]?.array).map {
                try ChatMessage(json: $0)
            }
            var variables = JSONObject()
            if try index >= #require(golden["first_with_tools"]?.int) {
                variables["tools"] = golden["tools"]
            }
            func run() throws -> [TextSegment] {
                try template.render(
                    messages: messages, addGenerationPrompt: render["prompt"]?.bool ?? false,
                    bosToken: "<|im_start|>", eosToken: "<|im_end|>", variables: variables)
            }
            if let expected = render["text"]?.string {
                #expect(text(try run()) == Array(expected.unicodeScalars), "conversation \(index)")
            } else {
                #expect(throws: MartletError.self, "conversation \(index)") { try run() }
            }
        }
    }

    @Test func evaluatesAsTheReference() throws {
        let golden = try Fixture.json("templates.json")
        let variables = try #require(golden["variables"]?.object)
        let snippets = golden["snippets"]?.array ?? []
        #expect(snippets.count > 170)
        for snippet in snippets {
            let source = try #require(snippet["source"]?.string)
            if let expected = snippet["text"]?.string {
                do {
                    let mine = text(try ChatTemplate(source: source).render(variables: variables))
                    #expect(mine == Array(expected.unicodeScalars), "\(source.debugDescription)")
                } catch {
                    Issue.record("\(source.debugDescription) fails: \(error)")
                }
            } else {
                // `append` on a list from outside is refused as well, by a rule of our own.
                #expect(throws: MartletError.self, "\(source.debugDescription)") {
                    try ChatTemplate(source: source).render(variables: variables)
                }
            }
        }
    }

    @Test func tellsWhereTextComesFrom() throws {
        let sources = [
            "[{{ x }}]", "[{{ x ~ '' }}]", "{{ '[' + x + ']' }}", "[{{ x | trim }}]",
            "[{{ x.strip() }}]",
            "[{{ x[0:] }}]", "[{{ x.split('~')[0] }}]", "[{{ x | replace('~', '-') }}]",
            "{{ '[%s]' % x }}",
            "{{ '[{}]'.format(x) }}", "[{{ [x] | join }}]",
            "{% set y %}[{{ x }}]{% endset %}{{ y }}",
            "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(x) }}",
            "[{% for c in x %}{{ c }}{% endfor %}]",
            "[{{ x | upper | lower }}]", "[{{ x | title | lower }}]", "[{{ x | indent(0) }}]",
            "[{{ x[::-1][::-1] }}]",
        ]
        for source in sources {
            let segments = try ChatTemplate(source: source).render(
                variables: members(["x": "<|end|>"]))
            #expect(
                segments == [
                    TextSegment("[", isTrusted: true), TextSegment("<|end|>", isTrusted: false),
                    TextSegment("]", isTrusted: true),
                ], "\(source)")
        }
        for source in ["{{ [x] }}", "{{ x | tojson }}", "{{ {'k': x} }}", "{{ {x: 1} | tojson }}"] {
            let segments = try ChatTemplate(source: source).render(
                variables: members(["x": "<|end|>"]))
            #expect(segments.contains(TextSegment("<|end|>", isTrusted: false)), "\(source)")
        }
    }

    @Test func changesOnlyItsOwnLists() throws {
        let own = "{% set l = [1] %}{% set _ = l.append(2) %}{% set _ = l.pop(0) %}{{ l }}"
        #expect(
            try ChatTemplate(source: own).render(variables: members([:])) == [
                TextSegment("[2]", isTrusted: true)
            ])
        #expect(throws: MartletError.self) {
            try ChatTemplate(source: "{{ l.append(2) }}").render(variables: members(["l": [1]]))
        }
    }

    @Test func tellsTheTime() throws {
        let template = try ChatTemplate(source: "{{ strftime_now('%d %B %Y %a %j %-d %I:%M %p') }}")
        let segments = try template.render(
            messages: [], now: TemplateTime(year: 2024, month: 2, day: 9, hour: 13, minute: 5))
        #expect(segments == [TextSegment("09 February 2024 Fri 040 9 01:05 PM", isTrusted: true)])
        let year = try ChatTemplate(source: "{{ strftime_now('%Y') | int > 2025 }}")
        #expect(try year.render(messages: []) == [TextSegment("True", isTrusted: true)])
    }

    static let unsupported = [
        ("a\n{% include 'x' %}", "include", "2"), ("\n\n{% block b %}{% endblock %}", "block", "3"),
        ("{% for x in y recursive %}{% endfor %}", "recursive", "1"), ("{{ f(*xs) }}", "*", "1"),
        ("{{ x | xmlattr }}", "xmlattr", "1"), ("\n{{ x is escaped }}", "escaped", "2"),
    ]

    @Test(arguments: unsupported) func namesWhatItDoesNotSupport(
        source: String, word: String, line: String
    ) {
        let error = #expect(throws: MartletError.self) { try ChatTemplate(source: source) }
        #expect(error?.code == .unsupported)
        #expect(error?.message.contains(word) == true)
        #expect(error?.context["line"] == line)
    }

    static let hostile = [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 'a' * 100000000 }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ [0] * 100000000 }}", "{{ 'a' * 4000 * 4000 | replace('a', 'aaaaaaaa') }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}",
        "{% set l = [] %}{% set _ = l.append(l) %}{% set m = [] %}{% set _ = m.append(m) %}{{ l == m }}",
        "{{ 'x' | indent(100000000) }}", "{{ 9223372036854775807 + 1 }}", "{{ 2 ** 64 }}",
        "{{ range(1, 9223372036854775807) }}", "{{ '%999999d' % 1 }}",
        String(repeating: "(", count: 5000), "{{ " + String(repeating: "(", count: 5000),
        "{{ " + String(repeating: "not ", count: 5000) + "x }}",
        "{{ " + String(repeating: "-", count: 5000) + "1 }}",
        "{{ x" + String(repeating: "[0]", count: 5000) + " }}",
        "{{ 1" + String(repeating: "+1", count: 5000) + " }}",
        String(repeating: "{% if x %}", count: 5000),
        "{{ 1" + String(repeating: "|string", count: 5000) + " }}",
        "{{ 1" + String(repeating: " if 1 else 1", count: 5000) + " }}",
        "{{ 1" + String(repeating: " or 1", count: 5000) + " }}",
        // Few nodes, much to read: values that name one value twice, and long texts searched often.
        doubled("l = (1,)", "l = (ns.l, ns.l)") + "{{ {ns.l: 1} | length }}",
        doubled("l = [1], m = [1]", "l = [ns.l, ns.l]", "m = [ns.m, ns.m]") + "{{ ns.l == ns.m }}",
        doubled("l = [1], m = [1]", "l = [ns.l, ns.l]", "m = [ns.m, ns.m]")
            + "{{ [ns.l, ns.m] | sort }}",
        doubled("l = [1]", "l = [ns.l, ns.l]") + "{{ [ns.l, 2].count(ns.l ~ '') }}",
        "{% set s = 'a' * 1000000 %}{% for i in range(90000) %}{{ s.find('b') }}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(90000) %}{{ 'b' in s }}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(90000) %}{{ s.isalpha() }}{% endfor %}",
        "{% set s = 'a' * 999999 %}{% set u = s ~ 'a' %}{% for i in range(90000) %}{{ s ~ 'a' == u }}{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% break %}{% endfor %}{% endfor %}",
    ]

    /// A namespace's lists, each made of the one before twice, forty times.
    private static func doubled(_ start: String, _ steps: String...) -> String {
        "{% set ns = namespace(\(start)) %}{% for i in range(40) %}"
            + steps.map { "{% set ns.\($0) %}" }.joined() + "{% endfor %}"
    }

    /// Patterns of length n against texts that nearly hold them everywhere.
    @Test func longSearchesGrowWithTheTextAlone() throws {
        let source = """
            {% set s = 'a' * 1000000 %}{% set t = 'a' * 500000 ~ 'b' %}{{ s.find(t) }} {{ t in s }} \
            {{ s.rfind(t) }} {{ s.count(t) }} {{ s.split(t) | length }} {{ s.rsplit(t, 3) | length }}
            """
        #expect(
            try ChatTemplate(source: source).render(variables: members([:])) == [
                TextSegment("-1 False -1 0 1 1", isTrusted: true)
            ])
    }

    @Test func findsWhatPlainSearchFinds() throws {
        let template = try ChatTemplate(source: "{{ x.find(y) }} {{ x.rfind(y) }}")
        var random = SeededGenerator(state: 5)
        func text(_ count: Int) -> String {
            String((0..<count).map { _ in Bool.random(using: &random) ? "a" : "b" })
        }
        for round in 0..<300 {
            let x = text(60)
            // Half of the patterns occur.
            let start = Int.random(in: 0..<45, using: &random)
            let y = round % 2 == 0 ? text(9) : String(Array(x)[start..<start + 12])
            let starts = (0...x.count - y.count).filter { Array(x)[$0...].starts(with: y) }
            let found = try template.render(variables: members(["x": .string(x), "y": .string(y)]))
            #expect(
                found.map(\.text).joined() == "\(starts.first ?? -1) \(starts.last ?? -1)",
                "\(y) in \(x)")
        }
    }

    @Test(arguments: hostile.indices) func hostileTemplatesEndInAnError(index: Int) {
        let source = Self.hostile[index]
        let isPlainText = source.allSatisfy { $0 == "(" }
        if isPlainText {
            #expect(throws: Never.self) {
                try ChatTemplate(source: source).render(variables: members([:]))
            }
        } else {
            #expect(throws: MartletError.self) {
                try ChatTemplate(source: source).render(variables: members([:]))
            }
        }
    }

    @Test func damagedTemplatesNeverTrap() throws {
        let golden = try Fixture.json("templates.json")
        let variables = try #require(golden["variables"]?.object)
        var random = SeededGenerator(state: 3)
        let sources = (golden["snippets"]?.array ?? []).compactMap { $0["source"]?.string }
        let marks = Array("{}%#-+|()[]'\",.:~*/ \n0x\\".unicodeScalars)
        var outcomes = [0, 0]
        for source in sources {
            for _ in 0..<20 {
                var scalars = Array(source.unicodeScalars)
                for _ in 0..<Int.random(in: 1...3, using: &random) where !scalars.isEmpty {
                    let at = Int.random(in: 0..<scalars.count, using: &random)
                    switch Int.random(in: 0..<3, using: &random) {
                    case 0: scalars.remove(at: at)
                    case 1: scalars.insert(marks.randomElement(using: &random) ?? "{", at: at)
                    default: scalars[at] = marks.randomElement(using: &random) ?? "}"
                    }
                }
                var view = String.UnicodeScalarView()
                view.append(contentsOf: scalars)
                do {
                    _ = try ChatTemplate(source: String(view)).render(variables: variables)
                    outcomes[0] += 1
                } catch {
                    #expect(error is MartletError)
                    outcomes[1] += 1
                }
            }
        }
        #expect(outcomes[0] > 0 && outcomes[1] > 0)
    }
}
