// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletQuantization
import Testing

@Suite struct GGUFFileTests {
    @Test func readsMetadataAndTensors() throws {
        let file = try GGUFFile(bytes: ByteView(SmallGGUF.content))
        #expect(file.names == ["eight", "four", "plain"])
        #expect(file.metadata["texts"]?.array?.compactMap(\.string) == ["a", "bc"])
        #expect(file.metadata["nested"]?.array?.first?.array?.compactMap(\.bool) == [true, false])
        guard case .plain(let plain) = try file.weight("plain") else {
            Issue.record("not plain")
            return
        }
        #expect(plain.shape == [2, 4])
        #expect(try plain.floats() == (0..<8).map(Float.init))
        #expect(try file.storage(of: "eight").description == "int8.g32.f16")
        #expect(try file.storage(of: "four").description == "int4.g32.min.f16")
        #expect(try decoded(file, "eight") == (0..<32).map { 0.5 * Float($0 - 16) })
        // Low nibbles are values 0 ... 15, high nibbles 16 ... 31.
        #expect(
            try decoded(file, "four")
                == (0..<32).map { 2 * Float($0 < 16 ? $0 : 31 - $0) - 1 })
    }

    @Test(arguments: ["q4_0", "q4_1", "q8_0", "f16", "bf16", "f32"])
    func decodesAsTheReferencePackage(_ name: String) throws {
        let file = try GGUFFile(path: Fixture.path("gguf-quants/quants.gguf"))
        let expected = try SafetensorsFile(path: Fixture.path("gguf-quants/expected.safetensors"))
        #expect(try decoded(file, name) == expected.tensor(name).floats())
    }

    private func decoded(_ file: GGUFFile, _ name: String) throws -> [Float] {
        switch try file.weight(name) {
        case .plain(let tensor): try tensor.floats()
        case .quantized(let tensor): try SchemeRegistry.decode(tensor).floats()
        }
    }

    @Test func everyTruncationThrows() throws {
        let content = SmallGGUF.content
        for length in 0..<content.count {
            #expect(throws: MartletError.self, "length \(length)") {
                try GGUFFile(bytes: ByteView(Array(content.prefix(length))))
            }
        }
    }

    @Test func everyBitFlipIsReadOrRefused() throws {
        let content = SmallGGUF.content
        var refused = 0
        for bit in 0..<content.count * 8 {
            var damaged = content
            damaged[bit / 8] ^= 1 << (bit % 8)
            do {
                let file = try GGUFFile(bytes: ByteView(damaged))
                for name in file.names { _ = try file.weight(name).shape }
            } catch is MartletError {
                refused += 1
            }
        }
        #expect(refused > content.count)
    }

    @Test(arguments: [
        "tensors 2^60", "pairs 2^64-1", "string length", "array count", "array nesting", "rank 0",
        "rank 5", "size overflow", "product overflow", "offset overflow", "offset outside",
        "unaligned", "overlap", "same name", "same key", "alignment 0", "alignment 3", "bool 2",
        "value type", "columns", "version 7", "big-endian", "name not UTF-8",
    ])
    func refusesHostileFiles(_ attack: String) throws {
        let file = ByteView(try #require(Self.attacks[attack]).content)
        let error = #expect(throws: MartletError.self) { try GGUFFile(bytes: file) }
        #expect(error?.code == .corrupt || error?.code == .unsupported, "\(attack)")
    }

    private static let attacks: [String: Bytes] = {
        typealias File = SmallGGUF
        var result: [String: Bytes] = [
            "tensors 2^60": File.header(tensors: 1 << 60, pairs: 0),
            "pairs 2^64-1": File.header(tensors: 0, pairs: .max),
            "version 7": File.header(version: 7, tensors: 0, pairs: 0),
            "big-endian": File.header(version: 3 << 24, tensors: 0, pairs: 0),
        ]
        func pair(_ attack: String, _ key: String, _ type: UInt32, _ add: (inout Bytes) -> Void) {
            var bytes = File.header(tensors: 0, pairs: 1)
            bytes.add(key)
            bytes.add(type)
            add(&bytes)
            result[attack] = bytes
        }
        pair("string length", "k", 8) { $0.add(UInt64.max) }
        pair("array count", "k", 9) {
            $0.add(UInt32(0))
            $0.add(UInt64(1) << 62)
        }
        pair("array nesting", "k", 9) {
            for _ in 0..<100_000 {
                $0.add(UInt32(9))
                $0.add(UInt64(1))
            }
        }
        pair("bool 2", "k", 7) { $0.content.append(2) }
        pair("value type", "k", 13) { $0.add(UInt64(0)) }
        pair("alignment 0", "general.alignment", 4) { $0.add(UInt32(0)) }
        pair("alignment 3", "general.alignment", 4) { $0.add(UInt32(3)) }
        var twice = File.header(tensors: 0, pairs: 2)
        for _ in 0..<2 {
            twice.add("k")
            twice.add(UInt32(0))
            twice.content.append(0)
        }
        result["same key"] = twice
        func tensors(_ attack: String, _ infos: [(String, [UInt64], UInt32, UInt64)]) {
            var bytes = File.header(tensors: UInt64(infos.count), pairs: 0)
            for info in infos {
                File.info(&bytes, info.0, info.1, type: info.2, offset: info.3)
            }
            bytes.pad(to: 32)
            bytes.content += [UInt8](repeating: 0, count: 256)
            result[attack] = bytes
        }
        tensors("rank 0", [("a", [], 0, 0)])
        tensors("rank 5", [("a", [1, 1, 1, 1, 1], 0, 0)])
        tensors("size overflow", [("a", [.max], 0, 0)])
        tensors("product overflow", [("a", [1 << 40, 1 << 40], 0, 0)])
        tensors("offset overflow", [("a", [1], 0, .max - 31)])
        tensors("offset outside", [("a", [1], 0, 1 << 40)])
        tensors("unaligned", [("a", [1], 0, 4)])
        tensors("overlap", [("a", [16], 0, 0), ("b", [1], 0, 32)])
        tensors("same name", [("a", [1], 0, 0), ("a", [1], 0, 32)])
        var name = File.header(tensors: 0, pairs: 1)
        name.add(UInt64(1))
        name.content.append(0xff)
        name.add(UInt32(0))
        name.content.append(0)
        result["name not UTF-8"] = name
        tensors("columns", [("a", [33, 1], 8, 0)])
        return result
    }()

    @Test func unknownTypesFailOnlyWhenAskedFor() throws {
        var bytes = SmallGGUF.header(tensors: 2, pairs: 0)
        SmallGGUF.info(&bytes, "known", [1], type: 0, offset: 0)
        SmallGGUF.info(&bytes, "other", [256], type: 12, offset: 32)
        bytes.pad(to: 32)
        bytes.content += [UInt8](repeating: 0, count: 256)
        let file = try GGUFFile(bytes: ByteView(bytes.content))
        _ = try file.weight("known")
        let error = #expect(throws: MartletError.self) { try file.weight("other") }
        #expect(error?.message.contains("Q4_K") == true)
        #expect(throws: MartletError.self) { try file.weight("missing") }
    }
}
