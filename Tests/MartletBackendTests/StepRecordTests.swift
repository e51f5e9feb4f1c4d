// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import Testing

@Suite struct StepRecordTests {
    private static let limits = StepLimits(
        maxTokens: 8, maxRequests: 2, maxLogitRows: 4, maxContext: 64)

    private static func group(_ kind: KVGroup.Kind, blockSize: Int = 16) -> KVGroup {
        KVGroup(
            layerCount: 1, kvHeadCount: 1, headDim: 8, scheme: KVScheme(dtype: .f32), kind: kind,
            blockSize: blockSize)
    }

    @Test func embeddingsAndMasksFitTheLargestStep() throws {
        let sized = StepRecord(
            limits: Self.limits, groups: [], vocabularySize: 70_000, embeddingSize: 5000)
        _ = try sized.add(.embeddings, Float.self, count: 8 * 5000)
        _ = try sized.add(.logitMask, UInt32.self, count: 4 * (70_000 + 31) / 32)
        let bare = StepRecord(limits: Self.limits, groups: [])
        #expect(throws: MartletError.self) {
            try bare.add(.embeddings, Float.self, count: 8 * 5000)
        }
    }

    /// As many copies as a large arena has pages: the count is a word of its own.
    @Test(arguments: [0, 1, 65_535, 65_536, 70_000])
    func countsOfBlockOperations(_ count: Int) throws {
        let limits = StepLimits(
            maxTokens: 8, maxRequests: 64, maxLogitRows: 4, maxContext: 1 << 14)
        let record = StepRecord(limits: limits, groups: [Self.group(.selfAttention)])
        let section = try record.add(.blockOperations, BlockOperation.self, count: count)
        for index in 0..<count {
            section[index] = BlockOperation(
                kind: .copy, group: 0, source: Int32(index), destination: 0)
        }
        record.setBlockOperationCount(count)
        #expect(record.blockOperationCount() == count)
        record.begin(stream: 0, number: 1)
        #expect(record.blockOperationCount() == 0)
    }

    /// A record sent elsewhere holds nothing but what was written.
    @Test func gapsAreZero() throws {
        let record = StepRecord(limits: Self.limits, groups: [])
        _ = try record.add(.tokenSource, count: 8).update(repeating: -1)
        record.begin(stream: 0, number: 1)
        let sections = [
            try record.add(.tokenSource, count: 1), try record.add(.positions, count: 3),
        ]
        for section in sections { section.update(repeating: 1) }
        let words = record.bytes.bindMemory(to: Int32.self)
        let header = words.count - 32
        #expect(words[header...].filter { $0 != 0 } == [1, 1, 1, 1])
    }

    /// Rows keep their stamps as long as they lie where the step before had them, and no longer.
    @Test func rowsOfBlockTablesAreKept() throws {
        let record = StepRecord(limits: Self.limits, groups: [Self.group(.selfAttention)])
        var step = 0
        /// The stamps that a step of so many rows, behind so many words, finds; it names all rows 7.
        func stamps(rows: Int = 2, columns: Int = 4, words: Int? = 4) throws -> [UInt64] {
            step += 1
            record.begin(stream: 0, number: step)
            guard let words else { return [] }
            try record.add(.positions, count: words).update(repeating: -1)
            var found: [UInt64] = []
            try record.addBlockTable(group: 0, requests: rows, columns: columns) { table, stamps in
                for row in 0..<rows {
                    found.append(stamps[row])
                    for column in 0..<columns {
                        if stamps[row] == 7 { #expect(table[row * columns + column] == 7) }
                        table[row * columns + column] = 7
                    }
                    stamps[row] = 7
                }
            }
            return found
        }
        #expect(try stamps() == [0, 0])
        #expect(try stamps() == [7, 7])
        #expect(try stamps(rows: 1) == [7])
        #expect(try stamps() == [7, 0], "the second row was not the last step's")
        #expect(try stamps(columns: 3) == [0, 0])
        #expect(try stamps() == [0, 0])
        #expect(try stamps(words: 40) == [0, 0], "the table moved")
        #expect(try stamps(words: 40) == [7, 7])
        _ = try stamps(words: nil)
        #expect(try stamps(words: 40) == [0, 0], "a step without the group lay between")
    }

    /// One request of one token at a position, with keys up to a length in one page.
    private static func record(
        _ group: KVGroup, position: Int32, length: Int32, slot: Int32?
    ) throws -> StepRecord {
        let record = StepRecord(limits: limits, groups: [group])
        record.setCounts(tokens: 1, requests: 1, logitRows: 0)
        try record.add(.tokenSource, count: 1)[0] = 0
        try record.add(.positions, count: 1)[0] = position
        try record.add(.requestIndex, count: 1)[0] = 0
        let starts = try record.add(.queryStart, count: 2)
        (starts[0], starts[1]) = (0, 1)
        try record.add(.kvStart, group: 0, count: 1)[0] = 0
        try record.add(.kvLength, group: 0, count: 1)[0] = length
        record.setBlockColumns(1, group: 0)
        try record.add(.blockTable, group: 0, count: 1)[0] = 3
        if let slot { try record.add(.slot, group: 0, count: 1)[0] = slot }
        return record
    }

    private static func check(_ record: StepRecord, _ group: KVGroup, isWritten: Bool) throws {
        try StepValidator(
            limits: limits, idLimit: 10, embeddingSize: 0, vocabularySize: 0, groups: [group],
            activeGroups: [KVGroupUse(group: 0, isWritten: isWritten)], pageCount: 4,
            stateSlotCount: 0, previousLogitRows: 0
        ).check(record)
    }

    /// In a group of the request's own tokens positions end before the length; in an encoder's they are
    /// the decoder's, and mean nothing there.
    @Test func lengthsOfCrossGroupsAreTheirOwn() throws {
        let (own, cross) = (Self.group(.selfAttention), Self.group(.crossAttention))
        for isWritten in [true, false] {
            try Self.check(
                Self.record(cross, position: 40, length: 5, slot: -1), cross, isWritten: isWritten)
            #expect(throws: MartletError.self) {
                try Self.check(
                    Self.record(own, position: 40, length: 5, slot: -1), own, isWritten: isWritten)
            }
            try Self.check(
                Self.record(own, position: 4, length: 5, slot: -1), own, isWritten: isWritten)
        }
        // No tokens of an encoder, or more than its pages hold.
        for length: Int32 in [0, 17] {
            #expect(throws: MartletError.self) {
                try Self.check(
                    Self.record(cross, position: 1, length: length, slot: -1), cross,
                    isWritten: false)
            }
        }
        // Slots are asked of who writes.
        try Self.check(
            Self.record(cross, position: 0, length: 5, slot: nil), cross, isWritten: false)
        for slot: Int32? in [nil, 64] {
            #expect(throws: MartletError.self) {
                try Self.check(
                    Self.record(cross, position: 0, length: 5, slot: slot), cross, isWritten: true)
            }
        }
    }
}
