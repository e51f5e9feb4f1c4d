// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

@Suite struct JSONTests {
    @Test(
        arguments: [
            ("null", JSONValue.null), (" true\n", .bool(true)), ("[]", .array([])),
            ("-9223372036854775808", .int(Int.min)), ("9223372036854775807", .int(Int.max)),
            ("9223372036854775808", .double(9_223_372_036_854_775_808)), ("1.5e3", .double(1500)),
            ("-0", .double(-0.0)), ("\"\\ud83d\\ude00\\n\\u00e9\"", .string("😀\né")),
            ("{\"b\":1,\"a\":[2,{}]}", ["b": 1, "a": [2, [:] as JSONValue]] as JSONValue),
        ] as [(String, JSONValue)])
    func reads(_ text: String, _ value: JSONValue) throws {
        let read = try JSONValue.parse(text)
        #expect(read == value)
        #expect(try JSONValue.parse(read.serialized()) == value)
        #expect(try JSONValue.parse(read.serialized(pretty: true)) == value)
    }

    @Test(arguments: [
        ("", 0), ("[1,]", 3), ("{\"a\":1,}", 7), ("01", 0), ("1.", 2), ("+1", 0), ("NaN", 0),
        ("1e999", 0), ("\"\u{1}\"", 1), ("\"\\ud83d\"", 1), ("\"\\x\"", 2), ("\"abc", 0),
        ("[1 2]", 3), ("{\"a\" 1}", 5), ("{\"a\":1,\"a\":2}", 7), ("1 2", 2), ("tru", 0), ("-", 1),
        ("\u{feff}1", 0), ("\"\\u12g4\"", 5),
    ])
    func refuses(_ text: String, _ offset: Int) {
        let error = #expect(throws: MartletError.self) {
            try JSONValue.parse(text, refusesDuplicateKeys: true)
        }
        #expect(error?.code == .corrupt)
        #expect(error?.context["offset"] == String(offset), "\(text): \(error?.message ?? "")")
    }

    @Test func limitsDepth() throws {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: MartletError.self) { try JSONValue.parse(deep) }
        let fits = String(repeating: "[", count: 8) + String(repeating: "]", count: 8)
        #expect(try JSONValue.parse(fits, depthLimit: 8).array?.count == 1)
        #expect(throws: MartletError.self) { try JSONValue.parse(fits, depthLimit: 7) }
    }

    @Test func refusesInvalidUTF8() {
        #expect(throws: MartletError.self) { try JSONValue.parse([0x22, 0xff, 0x22] as [UInt8]) }
        #expect(throws: MartletError.self) {
            try JSONValue.parse([0x22, 0x5c, 0x6e, 0xc0, 0x80, 0x22] as [UInt8])
        }
    }

    @Test func everyTruncationThrows() throws {
        let text = Array("{\"key\\n\":[1,-2.5e-3,true,null,\"\\u00e9x\"],\"z\":{}}".utf8)
        _ = try JSONValue.parse(text)
        for length in 0..<text.count {
            #expect(throws: MartletError.self) { try JSONValue.parse(Array(text.prefix(length))) }
        }
    }

    @Test func objectsKeepOrderAndFindKeys() throws {
        let names = (0..<1000).map { "key\($0 * 7919 % 1000)" }
        let members = names.map { "\"\($0)\": \"\($0)!\"" }.joined(separator: ",")
        let value = try JSONValue.parse("{\(members)}")
        #expect(value.object?.keys == names)
        for name in names { #expect(value[name]?.string == name + "!") }
        #expect(value["none"] == nil)
        #expect(throws: MartletError.self) {
            try JSONValue.parse("{\(members), \"key5\": 1}", refusesDuplicateKeys: true)
        }
        let last = try JSONValue.parse("{\(members), \"key5\": 1}")
        #expect(last["key5"]?.int == 1)
        #expect(last.object?.count == 1000)
        var object = try #require(last.object)
        object["key5"] = nil
        #expect(object.count == 999 && object["key5"] == nil && object["key6"] != nil)
    }

    @Test func accessorsConvertOnlyExactly() {
        #expect(JSONValue.double(8).int == 8)
        #expect(JSONValue.double(8.5).int == nil)
        #expect(JSONValue.int(8).double == 8)
        #expect(JSONValue.bool(true).int == nil)
        #expect(JSONValue.array([1])[1] == nil)
        #expect(JSONValue.double(.infinity).serialized() == "null")
    }
}
