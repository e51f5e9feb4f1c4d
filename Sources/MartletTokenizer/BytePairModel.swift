// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Merges by rank over flat tables.
///
/// `@unchecked Sendable`: the tables are written only in `init`.
final class BytePairModel: @unchecked Sendable {
    /// A pair of tokens and what it merges to.
    struct Slot {
        var key: UInt64
        var rank: UInt32
        var result: UInt32
    }

    static let noMerge = UInt64.max
    private let slots: UnsafeMutablePointer<Slot>
    private let mask: UInt64
    private let byteIDs: UnsafeMutablePointer<Int32>
    /// Finds whole tokens.
    let index: VocabularyIndex
    let ignoresMerges: Bool

    init(_ description: TokenizerDescription) {
        let special = Set(description.addedTokens.map(\.id))
        index = VocabularyIndex(description) { !special.contains($0) }
        ignoresMerges = description.ignoresMerges
        let mergeCount = description.merges.count / 3
        var capacity = 16
        while capacity < mergeCount * 2 { capacity *= 2 }
        mask = UInt64(capacity - 1)
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: Slot(key: .max, rank: .max, result: 0), count: capacity)
        byteIDs = .allocate(capacity: 256)
        for byte in 0..<256 {
            byteIDs[byte] = Int32(truncatingIfNeeded: index.id(of: [UInt8(byte)]) ?? -1)
        }
        description.merges.withUnsafeBufferPointer { merges in
            for rank in 0..<mergeCount {
                let key = UInt64(merges[rank * 3]) << 32 | UInt64(merges[rank * 3 + 1])
                var slot = BytePairModel.hash(key) & mask
                while slots[Int(slot)].key != key, slots[Int(slot)].key != .max {
                    slot = (slot + 1) & mask
                }
                slots[Int(slot)] = Slot(
                    key: key, rank: UInt32(truncatingIfNeeded: rank), result: merges[rank * 3 + 2])
            }
        }
    }

    deinit {
        slots.deallocate()
        byteIDs.deallocate()
    }

    /// Id of the token of one byte, negative if the vocabulary has none.
    @inline(__always)
    func id(ofByte byte: UInt8) -> Int32 { byteIDs[Int(byte)] }

    /// Rank in the high half and resulting id in the low half; `noMerge` if the pair does not
    /// merge.
    @inline(__always)
    func merge(_ left: UInt32, _ right: UInt32) -> UInt64 {
        let key = UInt64(left) << 32 | UInt64(right)
        var slot = BytePairModel.hash(key) & mask
        while true {
            let entry = slots[Int(slot)]
            if entry.key == key { return UInt64(entry.rank) << 32 | UInt64(entry.result) }
            if entry.key == .max { return BytePairModel.noMerge }
            slot = (slot + 1) & mask
        }
    }

    @inline(__always)
    private static func hash(_ key: UInt64) -> UInt64 {
        let product = key &* 0x9E37_79B9_7F4A_7C15
        return product ^ product >> 32
    }
}
