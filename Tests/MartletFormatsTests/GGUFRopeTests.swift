// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletFormats
import Testing

/// What GGUF files say of rotary positions, and of sizes, is read as llama.cpp reads it, or refused by their own keys.
@Suite struct GGUFRopeTests {
    /// A value as the file holds it.
    enum Value: Sendable {
        case text(String), number(Float), counts([UInt32])
    }

    /// A file without weights, but for `rope_freqs.weight` where factors are given.
    private func source(
        _ pairs: [(String, Value)], factors: [Float] = [], type: UInt32 = 0
    ) throws -> ModelSource {
        var bytes = SmallGGUF.header(
            tensors: factors.isEmpty ? 0 : 1, pairs: UInt64(pairs.count + 1))
        for (key, value) in [("general.architecture", .text("llama"))] + pairs {
            bytes.add(key)
            switch value {
            case .text(let text):
                bytes.add(UInt32(8))
                bytes.add(text)
            case .number(let number):
                bytes.add(UInt32(6))
                bytes.add(number.bitPattern)
            case .counts(let counts):
                for word in [9, 4] { bytes.add(UInt32(word)) }
                bytes.add(UInt64(counts.count))
                for count in counts { bytes.add(count) }
            }
        }
        if !factors.isEmpty {
            SmallGGUF.info(
                &bytes, "rope_freqs.weight", [UInt64(factors.count)], type: type, offset: 0)
        }
        bytes.pad(to: 32)
        for factor in factors { bytes.add(factor.bitPattern) }
        bytes.pad(to: 32)
        let url = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).gguf")
        try Data(bytes.content).write(to: url)
        defer { try? FileManager.default.removeItem(at: url) }
        return try ModelSource.open(url.path)
    }

    @Test(
        arguments: [
            ([], nil),
            ([("llama.rope.scaling.factor", .number(4))], #"{"rope_type":"linear","factor":4}"#),
            ([("llama.rope.scale_linear", .number(2))], #"{"rope_type":"linear","factor":2}"#),
            ([("llama.rope.scaling.factor", .number(0))], nil),
            (
                [
                    ("llama.rope.scaling.type", .text("none")),
                    ("llama.rope.scaling.factor", .number(4)),
                ],
                nil
            ),
            (
                [
                    ("llama.rope.scaling.type", .text("yarn")),
                    ("llama.rope.scaling.factor", .number(4)),
                ],
                #"{"rope_type":"yarn","factor":4}"#
            ),
        ] as [([(String, Value)], String?)])
    func scalings(_ pairs: [(String, Value)], expected: String?) throws {
        let found = try source(pairs).configuration.json["rope_scaling"]
        let wanted = try expected.map {
            try JSONValue.parse(ByteView(Array($0.utf8)), name: "expected")
        }
        #expect(found?["rope_type"]?.string == wanted?["rope_type"]?.string)
        #expect(found?["factor"]?.double == wanted?["factor"]?.double)
    }

    @Test func finishedFactorsStandAlone() throws {
        let found = try source([], factors: [1, 2]).configuration.json["rope_scaling"]
        #expect(found?["factors"]?.array?.compactMap(\.double) == [1, 2])
        #expect(throws: MartletError.self) {
            try source([("llama.rope.scaling.factor", .number(4))], factors: [1, 2])
        }
        #expect(throws: MartletError.self) {
            try source([("llama.rope.scaling.type", .text("yarn"))], factors: [1, 2])
        }
        // A type that is not read is no reason to go on without.
        #expect(throws: MartletError.self) { try source([], factors: [1, 2], type: 12) }
    }

    @Test func sizesOfLayersMayBeAList() throws {
        let key = "llama.attention.head_count_kv"
        let alike = try source([(key, .counts([2, 2, 2]))])
        #expect(try alike.configuration.int("num_key_value_heads") == 2)
        let error = #expect(throws: MartletError.self) { try source([(key, .counts([2, 4]))]) }
        #expect(error?.message.contains("'\(key)'") == true)
        let missing = #expect(throws: MartletError.self) {
            try alike.configuration.int("hidden_size")
        }
        #expect(missing?.message.contains("'llama.embedding_length' is missing") == true)
    }
}
