// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletEngineFile
import Testing

/// Damage of every kind is found when an engine is opened.
struct DamageTests {
    let bytes: [UInt8]
    let manifestOffset: Int
    let tableOffset: Int

    init() throws {
        let bytes = try Tiny.bytes()
        self.bytes = bytes
        func word(_ offset: Int) -> Int {
            Int(bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Int64.self) })
        }
        tableOffset = word(24)
        manifestOffset = word(32)
        #expect(manifestOffset + word(40) == bytes.count)
    }

    private func opens(_ content: [UInt8]) -> Bool {
        code { _ = try EngineFileReader(ByteView(content), threadCount: 1) } == nil
    }

    private func opensWithFlip(_ bit: Int) -> Bool {
        var copy = bytes
        copy[bit / 8] ^= 1 << UInt8(bit % 8)
        return opens(copy)
    }

    @Test func theIntactFileOpens() { #expect(opens(bytes)) }

    @Test func everyTruncationIsFound() {
        let whole = ByteView(bytes)
        let accepted = (0..<bytes.count).filter { length in
            guard let part = whole.slice(0, count: length) else { return true }
            return code { _ = try EngineFileReader(part, threadCount: 1) } == nil
        }
        #expect(accepted.isEmpty)
    }

    @Test func extraBytesAreFound() { #expect(!opens(bytes + [0])) }

    @Test func everyBitFlipOfTheHeaderPageIsFound() {
        let accepted = (0..<4096 * 8).filter(opensWithFlip)
        #expect(accepted.isEmpty)
    }

    @Test func everyBitFlipOfTablesAndManifestIsFound() {
        let accepted = (tableOffset * 8..<bytes.count * 8).filter(opensWithFlip)
        #expect(accepted.isEmpty)
    }

    @Test func tenThousandBitFlipsOfTheBodyAreFound() {
        var generator = SeededGenerator(seed: 42)
        let accepted = (0..<10_000)
            .map { _ in Int.random(in: 4096 * 8..<tableOffset * 8, using: &generator) }
            .filter(opensWithFlip)
        #expect(accepted.isEmpty)
    }

    @Test func damageIsReportedWithItsPlaceAndAMend() throws {
        var copy = bytes
        copy[tableOffset - 1] ^= 1
        do {
            _ = try EngineFileReader(ByteView(copy), path: "tiny.martlet")
            Issue.record("opened")
        } catch {
            #expect("\(error)".contains("damaged in the MiB at 4096"))
            #expect("\(error)".contains("martlet build"))
        }
    }
}
