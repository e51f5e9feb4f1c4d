// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

@Suite struct ZipTests {
    private func inflate(_ bytes: [UInt8], limit: Int = 1 << 20) throws -> [UInt8] {
        var output: [UInt8] = []
        _ = try bytes.withUnsafeBytes { try Inflate.run($0, limit: limit) { output += $0 } }
        return output
    }

    @Test func inflatesAllKindsOfBlocks() throws {
        #expect(try inflate(DeflateFixtures.dynamic) == DeflateFixtures.lines(400))
        #expect(try inflate(DeflateFixtures.fixed) == DeflateFixtures.lines(40))
        #expect(
            try inflate(DeflateFixtures.repeated)
                == [UInt8](repeating: UInt8(ascii: "a"), count: 700_000))
        #expect(try inflate([1, 3, 0, 0xfc, 0xff, 7, 8, 9]) == [7, 8, 9])
    }

    @Test func stopsAtTheLimit() {
        #expect(code { try inflate(DeflateFixtures.repeated, limit: 699_999) } == .corrupt)
    }

    @Test func everyTruncationIsAnError() {
        let whole = DeflateFixtures.dynamic
        for count in 0..<whole.count {
            #expect(code { try inflate(Array(whole[..<count])) } == .corrupt)
        }
    }

    @Test func damageNeverTraps() {
        var generator = SeededGenerator(state: 11)
        let wanted = DeflateFixtures.lines(400)
        var differentCount = 0
        for _ in 0..<3000 {
            var bytes = DeflateFixtures.dynamic
            bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^=
                1 << UInt8.random(in: 0..<8, using: &generator)
            let output = try? inflate(bytes)
            if output != wanted { differentCount += 1 }
        }
        #expect(differentCount > 2900)
    }

    private static let archive = ZipWriter.archive([
        ("a.txt", 0, Array("hello".utf8), Array("hello".utf8)),
        ("dir/b.txt", 8, DeflateFixtures.dynamic, DeflateFixtures.lines(400)),
    ])

    private func unpackAll(_ bytes: [UInt8]) throws -> [[UInt8]] {
        let archive = try ZipArchive(ByteView(bytes))
        return try archive.members.map { member in
            var output: [UInt8] = []
            try archive.unpack(member) { output += $0 }
            return output
        }
    }

    @Test func readsMembers() throws {
        let archive = try ZipArchive(ByteView(Self.archive))
        #expect(archive.members.map(\.name) == ["a.txt", "dir/b.txt"])
        #expect(try unpackAll(Self.archive) == [Array("hello".utf8), DeflateFixtures.lines(400)])
    }

    @Test func everyTruncatedArchiveIsAnError() {
        for count in 0..<Self.archive.count {
            #expect(code { try unpackAll(Array(Self.archive[..<count])) } == .corrupt)
        }
    }

    @Test func everyFlippedBitIsHandled() {
        var errorCount = 0
        for index in Self.archive.indices {
            var bytes = Self.archive
            bytes[index] ^= 1 << UInt8(index % 8)
            if failure({ try unpackAll(bytes) }) != nil { errorCount += 1 }
        }
        // Names, dates and versions may change unseen; content may not.
        #expect(errorCount > DeflateFixtures.dynamic.count)
    }
}
