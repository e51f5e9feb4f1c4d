// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletRuntime
import Testing

@Suite struct LoadFileTests {
    @Test func readsTheLinesOfOthersBenchmarks() throws {
        let text = """
            {"task_id": 0, "prompt": "Hello\\nworld", "output_tokens": 128}

            {"task_id": 1, "input_ids": [5, 6, 7], "output_tokens": 4, "lora": null}\r
            {"task_id": 2, "logits": [1], "output_tokens": 0, "prompt": null}
            """
        let items = try LoadFile.parse(text, name: "x.jsonl").items
        #expect(
            items == [
                LoadItem(
                    prompt: .text("Hello\nworld"), answer: .length(128), place: "x.jsonl:1"),
                LoadItem(prompt: .tokens([5, 6, 7]), answer: .length(4), place: "x.jsonl:3"),
                LoadItem(prompt: .tokens([1]), answer: .length(0), place: "x.jsonl:4"),
            ])
        let known = try items[0].tokenized { text in Array(repeating: 9, count: text.count) }
        #expect(known.promptCount == 11 && known.answerCount == 128)
    }

    @Test func readsConversations() throws {
        let text = """
            [{"id": "a", "conversations": [{"from": "human", "value": "Hi"},
              {"from": "gpt", "value": "Hello you"}, {"from": "human", "value": "Bye"}]},
             {"id": "b", "conversations": [{"from": "human", "value": "Alone"}]},
             {"id": "c", "conversations": []}]
            """
        let content = try LoadFile.parse(text, name: "x.json")
        #expect(content.skippedCount == 2)
        #expect(
            content.items == [
                LoadItem(
                    prompt: .text("Hi"), answer: .text("Hello you"), place: "x.json: conversation 0"
                )
            ])
        let item = try content.items[0].tokenized { text in text.utf8.map { Int32($0) } }
        #expect(item.prompt == .tokens([72, 105]) && item.answerCount == 9)
    }

    /// Columns of the Azure traces, of 2023 and of 2024.
    @Test func readsAzureTraces() throws {
        let text = """
            \u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r
            2023-12-31 23:59:58.5000000,4808,10\r
            2024-01-01 00:00:01.7500000,110,27\r
            2024-01-30 00:00:00+00:00,8,0
            """
        let items = try LoadFile.parse(text, name: "x.csv").items
        #expect(items.map(\.promptCount) == [4808, 110, 8])
        #expect(items.map(\.answerCount) == [10, 27, 0])
        #expect(items.map(\.arrival) == [0, 3.25, 1.5 + 29 * 86_400])
        #expect(items[2].place == "x.csv:4")
        // A leap year's February, in no order; 30 days are the most.
        let days = """
            TIMESTAMP,ContextTokens,GeneratedTokens
            2024-03-01 00:00:00,1,1
            2024-02-28 00:00:00,1,1
            2024-03-29 00:00:00,1,1
            """
        // One moment in four forms.
        let offsets = """
            TIMESTAMP,ContextTokens,GeneratedTokens,,
            2024-05-10 00:00:00.5Z,1,1,,
            2024-05-09 19:00:00.5-05:00,1,1,,
            2024-05-10 05:30:00.5+0530,1,1,,
            2024-05-10T02:00:00.5+02,1,1,,
            """
        #expect(
            try LoadFile.parse(offsets, name: "x.csv").items.map(\.arrival) == [0, 0, 0, 0])
        #expect(
            try LoadFile.parse(days, name: "x.csv").items.map(\.arrival)
                == [2 * 86_400, 0, 30 * 86_400])
    }

    /// Lists of blocks as traces write them; quotes around cells, doubled ones within.
    @Test(arguments: [
        ("\"[0, 14, 15]\"", [0, 14, 15]), ("\"[3 4]\"", [3, 4]), ("7", [7]), ("[]", []), ("", []),
        (" \"9223372036854775807,0\" ", [Int.max, 0]),
    ]) func readsBlocks(cell: String, blocks: [Int]) throws {
        let text = "hash_ids,\"input_length\",output_length,timestamp\n\(cell),5,6,\"0\"\r\n"
        let items = try LoadFile.parse(text, name: "x.csv").items
        #expect(items.map(\.prompt) == [.length(5, blocks: blocks)])
    }

    @Test(arguments: [
        """
        timestamp,input_length,output_length,hash_ids
        27482,6758,500,"[0, 1, 2]"
        30535,7322,490,"[0, 14, 15]"
        """,
        """
        {"timestamp": 27482, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
        {"timestamp": 30535, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14, 15]}
        """,
    ]) func readsMooncakeTraces(text: String) throws {
        let items = try LoadFile.parse(text, name: "trace").items
        #expect(
            items.map(\.prompt) == [
                .length(6758, blocks: [0, 1, 2]), .length(7322, blocks: [0, 14, 15]),
            ])
        #expect(abs((items[1].arrival ?? 0) - 3.053) < 1e-9 && items[0].arrival == 0)
        let plan = LoadPlan(
            items: items, arrivals: .recorded, vocabularySize: 1000, seed: 3)
        let prompts = plan.entries.map(\.request.prompt)
        #expect(prompts.map(\.count) == [6758, 7322])
        // One block in common, then none.
        let common = zip(prompts[0], prompts[1]).prefix { $0 == $1 }.count
        #expect(common >= 512 && common < 520)
        #expect(plan.entries.map(\.arrival) == items.map { $0.arrival ?? -1 })
        let rate = LoadPlan(
            items: items, declaredLength: 495, arrivals: .poisson(rate: 5), vocabularySize: 1000,
            seed: 3)
        #expect(rate.entries[0].arrival > 0 && rate.entries[1].arrival < 60)
        #expect(rate.entries.map(\.request.settings.maxTokens) == [500, 495])
        #expect(rate.entries.map(\.request.stopsAfter) == [nil, 490])
    }

    @Test(arguments: [
        ("", "holds no requests"),
        (
            "{\"prompt\": \"x\", \"output_tokens\": 3}\n{\"prompt\": \"x\"}",
            "f:2: \"output_tokens\" is missing"
        ),
        ("{\"prompt\": \"x\", \"output_tokens\": -3}", "f:1: \"output_tokens\" is -3"),
        ("{\"prompt\": \"x\", \"output_tokens\": 1e99}", "f:1: \"output_tokens\""),
        ("{\"output_tokens\": 3}", "f:1: needs one of"),
        ("{\"prompt\": \"x\", \"input_ids\": [1], \"output_tokens\": 3}", "f:1: needs one of"),
        ("{\"input_ids\": [], \"output_tokens\": 3}", "f:1: \"input_ids\""),
        ("{\"input_ids\": [1, 99999999999], \"output_tokens\": 3}", "f:1: \"input_ids\""),
        ("{\"input_ids\": [1, \"x\"], \"output_tokens\": 3}", "f:1: \"input_ids\""),
        ("{\"prompt\": \"x\", \"output_tokens\": 3}\n{\"prompt\": ", "f:2"),
        ("{\"input_length\": 5, \"timestamp\": 0}", "f:1: \"output_length\" is missing"),
        ("{\"input_length\": 5.5, \"timestamp\": 0, \"output_length\": 1}", "'5.5' is no count"),
        ("[{\"id\": 1}]", "f: conversation 0 has no \"conversations\""),
        ("[{\"conversations\": [{\"from\": \"human\"}]}]", "conversation 0 has a turn"),
        ("[{\"conversations\": [", "f"),
        ("TIMESTAMP,ContextTokens\n0,1", "f:1: there is no column generatedtokens"),
        ("time,input_length,output_length\n0,1,2", "f:1: there is no column timestamp"),
        ("timestamp,input_length,output_length\n0,1", "f:2: 2 cells"),
        ("timestamp,input_length,output_length\nnow,1,2", "f:2: 'now' is no time"),
        ("timestamp,input_length,output_length\n0,0,2", "f:2: '0' is no count"),
        ("timestamp,input_length,output_length\n0,1,99999999999999999999", "f:2: '99999999999"),
        ("timestamp,input_length,output_length\n1e300,1,2", "f:2: '1e300' is no time"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-01 00:00:00,1,2",
            "f:2: '2023-13-01 00:00:00' is no time"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-02-31 00:00:00,1,2",
            "f:2: '2023-02-31 00:00:00' is no time"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-02-01 00:00:00+1:2,1,2",
            "f:2: '2023-02-01 00:00:00+1:2' is no time"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens,timestamp\n0,1,2,3",
            "f:1: there are two columns 'timestamp'"
        ),
        (
            "{\"prompt\": \"a\", \"output_tokens\": 4, \"output_tokens\": 5}", "f"
        ),
        ("no file of requests", "f:1: there is no column"),
        (
            "{\"prompt\": \"x\", \"output_tokens\": 3}\n{\"prompt\": \"\", \"output_tokens\": 3}",
            "f:2: \"prompt\" is empty"
        ),
        ("{\"input_ids\": [], \"output_tokens\": 3}", "f:1: \"input_ids\" is []"),
        ("{\"input_ids\": [1, -5], \"output_tokens\": 3}", "f:1: \"input_ids\" holds -5"),
        ("{\"input_ids\": \"1\", \"output_tokens\": 3}", "f:1: \"input_ids\" is \"1\""),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,2\n2023-11-16 18:15:46,1,2",
            "f:3: '2023-11-16 18:15:46' is a date, but the time of f:2 is a number"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2\n5,1,2",
            "f:3: '5' is a number, but the time of f:2 is a date"
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n0,1,2\n-2e14,1,2\n9e14,1,2\n1,1,2",
            "f:4: comes 1100000000000000 s after f:3, but a trace lasts at most 2592000 s (30 days)"
        ),
        (
            "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}\n"
                + "{\"timestamp\": 2592000001, \"input_length\": 5, \"output_length\": 1}",
            "f:2: comes 2592001 s after f:1"
        ),
        (mooncake + "0,1,2,\"[1, 99999999999999999999]\"", "f:2: hash_ids: '99999999999"),
        (mooncake + "0,1,2,\"[1, -5]\"", "f:2: hash_ids: '-5' is no name of a block"),
        (mooncake + "0,1,2,\"[1, 2\"", "f:2: hash_ids: '[1'"),
        (mooncake + "0,1,2,\"[1,, 2]\"", "f:2: hash_ids: ''"),
        (mooncake + "0,1,2,one", "f:2: hash_ids: 'one'"),
        (mooncake + "0,1,2,[1]\n0,1,2,\"[1]", "f:3: cell 4 has a quote that is not closed"),
        (mooncake + "0,1,2,[1]\"", "f:2: cell 4 has a quote within text"),
        (mooncake + "0,1,\"2\"3,[1]", "f:2: cell 3 has text behind its quotes"),
        ("\"timestamp,input_length,output_length\n0,1,2", "f:1: cell 1 has a quote"),
        (json + "[1, -5]}", "f:1: hash_ids: -5"), (json + "[1, 2.5]}", "f:1: hash_ids: 2.5"),
        (json + "[1, 99999999999999999999]}", "f:1: hash_ids: 1e+20"),
        (json + "\"1\"}", "f:1: hash_ids: \"1\""),
    ]) func namesTheLineAndTheMend(text: String, message: String) {
        do {
            _ = try LoadFile.parse(text, name: "f")
            Issue.record("accepted \(text)")
        } catch {
            let error = error as? MartletError
            #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
            #expect(error?.mend != nil)
        }
    }

    private static let mooncake = "timestamp,input_length,output_length,hash_ids\n"
    private static let json =
        "{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": "

    /// Errors quote the beginning of what is wrong, and show what cannot be seen.
    @Test(arguments: [
        ("", "\0", "", "among \\0\\0"), (azure, "7\u{1b}", ",1,2", "f:2: '7\\u{1B}7"),
        (azure + "0,", "9", ",2", "f:2: '999"),
        (azure + "0,", "\u{202e}e\u{301}", ",2", "f:2: '\\u{202E}e\u{301}\\u{202E}"),
        ("{\"prompt\": \"x\", \"output_tokens\": \"", "y", "\"}", "\"output_tokens\" is \"yyy"),
        (mooncake + "0,1,2,", "z", "", "f:2: hash_ids: 'zzz"),
    ]) func quotesTheBeginning(start: String, long: String, end: String, message: String) {
        let text = start + String(repeating: long, count: 1 << 19) + end
        let error = #expect(throws: MartletError.self) { try LoadFile.parse(text, name: "f") }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
        #expect((error?.message.utf8.count ?? .max) < 200)
        #expect(error?.mend != nil)
    }

    private static let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

    /// What a tokenizer refuses, or makes no tokens of, is named by its line.
    @Test func namesTheLineOfText() throws {
        let text =
            "{\"input_ids\": [1], \"output_tokens\": 3}\n{\"prompt\": \"x\", \"output_tokens\": 3}"
        let items = try LoadFile.parse(text, name: "f").items
        let none = MartletError(.unsupported, "m has no tokenizer")
        #expect(try items[0].tokenized { _ in throw none } == items[0])
        var error = #expect(throws: MartletError.self) {
            try items[1].tokenized { _ in throw none }
        }
        #expect(error?.message == "f:2: m has no tokenizer" && error?.code == .unsupported)
        #expect(error?.mend?.contains("\"input_ids\"") == true)
        error = #expect(throws: MartletError.self) {
            try items[1].tokenized { _ in throw MartletError(.io, "cannot read m") }
        }
        #expect(error?.message == "f:2: cannot read m" && error?.mend == nil)
        error = #expect(throws: MartletError.self) { try items[1].tokenized { _ in [] } }
        #expect(error?.message.hasPrefix("f:2: the prompt has no tokens") == true)
        #expect(error?.mend != nil)
    }
}
