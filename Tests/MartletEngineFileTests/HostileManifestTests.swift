// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore
import MartletEngineFile
import Testing

/// Engines whose checksums are right and whose content is not.
struct HostileManifestTests {
    /// One change of a manifest and the error it must give.
    struct Case: CustomTestStringConvertible, Sendable {
        let name: String
        let expected: MartletError.Code
        let change: @Sendable (inout EngineManifest) -> Void
        var testDescription: String { name }

        init(
            _ name: String, _ expected: MartletError.Code = .corrupt,
            _ change: @escaping @Sendable (inout EngineManifest) -> Void
        ) {
            self.name = name
            self.expected = expected
            self.change = change
        }
    }

    static let cases = [
        Case("overlap") { $0.sections[1].offset = $0.sections[0].offset },
        Case("too long") { $0.sections[0].byteCount = 1 << 40 },
        Case("length overflows") { $0.sections[0].byteCount = .max },
        Case("negative length") { $0.sections[0].byteCount = -1 },
        Case("offset overflows") { $0.sections[0].offset = .max & ~4095 },
        Case("negative offset") { $0.sections[0].offset = -4096 },
        Case("in the header") { $0.sections[0].offset = 0 },
        Case("unaligned") { $0.sections[0].offset += 64 },
        Case("alignment zero") { $0.sections[0].alignment = 0 },
        Case("alignment negative") { $0.sections[0].alignment = .min },
        Case("alignment no power of two") { $0.sections[0].alignment = 12288 },
        Case("two equal keys") { $0.sections[1].key = $0.sections[0].key },
        Case("negative rank") { $0.sections[0].key.target.rank = -1 },
        Case("unknown kind", .unsupported) { $0.sections[2].key.kind = .init(rawValue: "x") },
        Case("parameter in no section") { $0.parameters[0].section = 99 },
        Case("parameter in a negative section") { $0.parameters[0].section = -1 },
        Case("parameter leaves its section") { $0.parameters[0].byteCount = 1 << 30 },
        Case("parameter overflows") { $0.parameters[1].offset = .max & ~63 },
        Case("parameter before its section") { $0.parameters[0].offset = -64 },
        Case("parameter unaligned") { $0.parameters[0].offset = 4 },
        Case("parameters overlap") { $0.parameters[1].offset = 64 },
        Case("two equal parameters") {
            let offset = $0.parameters[1].offset
            $0.parameters[1] = $0.parameters[0]
            $0.parameters[1].offset = offset
        },
        Case("shape overflows") { $0.parameters[0].shape = [.max, .max] },
        Case("shape negative") { $0.parameters[0].shape = [-1] },
        Case("rank of the shape") { $0.parameters[0].shape = Array(repeating: 1, count: 9) },
        Case("targets") { $0.targets = ["cuda"] },
        Case("entry points") { $0.entryPoints = [] },
        Case("model size") { $0.description.sizes.layerCount = -1 },
        Case("huge model size") { $0.description.sizes.vocabularySize = .max },
    ]

    @Test(arguments: cases)
    func isRefused(_ entry: Case) throws {
        let valid = try Tiny.bytes()
        var manifest = try EngineFileReader(ByteView(valid)).manifest
        entry.change(&manifest)
        let forged = forge(valid, manifest: Array(try JSONEncoder().encode(manifest)))
        #expect(code { _ = try EngineFileReader(ByteView(forged)) } == entry.expected)
    }

    @Test func forgingAnUnchangedManifestOpens() throws {
        let valid = try Tiny.bytes()
        let manifest = try EngineFileReader(ByteView(valid)).manifest
        let forged = forge(valid, manifest: Array(try JSONEncoder().encode(manifest)))
        #expect(try EngineFileReader(ByteView(forged)).manifest == manifest)
    }

    @Test(arguments: [
        "", "{}", "[]", "null", "{\"sections\":1e999}", "\u{0}",
        String(repeating: "[", count: 100_000),
        String(repeating: "{\"description\":", count: 100_000),
    ])
    func strangeJSONIsRefused(_ text: String) throws {
        let forged = forge(try Tiny.bytes(), manifest: Array(text.utf8))
        #expect(code { _ = try EngineFileReader(ByteView(forged)) } == .corrupt)
    }

    @Test func anOversizedManifestIsRefused() throws {
        let json = [UInt8](repeating: 0x20, count: (64 << 20) + 1)
        let forged = forge(try Tiny.bytes(), manifest: json)
        #expect(code { _ = try EngineFileReader(ByteView(forged)) } == .limitExceeded)
    }

    @Test func anotherFormatVersionIsRefused() throws {
        var copy = try Tiny.bytes()
        copy[8] = 3
        seal(&copy)
        #expect(code { _ = try EngineFileReader(ByteView(copy)) } == .unsupported)
    }

    @Test(arguments: [16, 24, 32, 40])
    func headerLengthsAreBounded(_ offset: Int) throws {
        for value in [0, 1, 4095, .max, UInt64.max, 1 << 63, 1 << 32] as [UInt64] {
            var copy = try Tiny.bytes()
            put(value, at: offset, in: &copy)
            seal(&copy)
            #expect(code { _ = try EngineFileReader(ByteView(copy)) } == .corrupt)
        }
    }

    /// Whatever a manifest says, opening and looking around ends in a value or an error.
    @Test func mutatedManifestsNeverTrap() throws {
        let valid = try Tiny.bytes()
        let start = Int(word(valid, 32))
        let json = Array(valid[start...])
        var generator = SeededGenerator(seed: 7)
        let digits = Array("0123456789-eE.\"[]{},:tfn".utf8)
        var opened = 0
        for _ in 0..<4000 {
            var copy = json
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let index = Int.random(in: 0..<copy.count, using: &generator)
                if Bool.random(using: &generator) {
                    copy[index] = digits.randomElement(using: &generator) ?? 0
                } else {
                    copy.insert(digits.randomElement(using: &generator) ?? 0, at: index)
                }
            }
            guard
                let engine = try? EngineFileReader(
                    ByteView(forge(valid, manifest: copy)), threadCount: 1)
            else { continue }
            opened += 1
            for section in engine.manifest.sections { #expect(engine.view(section) != nil) }
            _ = try? engine.plan(entryPoint: "decode", for: Tiny.cpu)
        }
        // Changes of names and of spare digits are harmless, so some must open.
        #expect(opened > 0 && opened < 4000)
    }

    private func word(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self) }
    }

    private func put(_ value: some FixedWidthInteger, at offset: Int, in bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) {
            bytes.replaceSubrange(offset..<offset + $0.count, with: $0)
        }
    }

    /// Makes the header's own checksum right.
    private func seal(_ bytes: inout [UInt8]) {
        put(bytes[0..<60].withUnsafeBytes { CRC32C.checksum($0) }, at: 60, in: &bytes)
    }

    /// The same engine with another manifest and right checksums.
    private func forge(_ valid: [UInt8], manifest: [UInt8]) -> [UInt8] {
        let start = Int(word(valid, 32))
        var bytes = Array(valid[..<start]) + manifest
        put(UInt64(bytes.count), at: 16, in: &bytes)
        put(UInt64(manifest.count), at: 40, in: &bytes)
        put(manifest.withUnsafeBytes { CRC32C.checksum($0) }, at: 52, in: &bytes)
        seal(&bytes)
        return bytes
    }
}
