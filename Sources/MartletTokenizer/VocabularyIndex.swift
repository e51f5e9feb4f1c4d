// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds the id of a token by its bytes: open addressing over the description's flat arrays.
struct VocabularyIndex: Sendable {
    private let tokenBytes: [UInt8]
    private let offsets: [UInt32]
    private var slots: [Int32]
    private let mask: Int

    /// Indexes the tokens that the filter keeps; of two with the same bytes the lower id is found.
    init(_ description: TokenizerDescription, where isIndexed: (Int) -> Bool) {
        tokenBytes = description.tokenBytes
        offsets = description.tokenOffsets
        let count = description.vocabularySize
        var capacity = 16
        while capacity < count * 2 { capacity *= 2 }
        mask = capacity - 1
        slots = [Int32](repeating: -1, count: capacity)
        tokenBytes.withUnsafeBufferPointer { all in
            for id in 0..<count where isIndexed(id) && id <= Int(Int32.max) {
                let token = UnsafeBufferPointer(
                    rebasing: all[Int(offsets[id])..<Int(offsets[id + 1])])
                var slot = Int(truncatingIfNeeded: VocabularyIndex.hash(token)) & mask
                while slots[slot] >= 0 {
                    let other = Int(slots[slot])
                    let known = all[Int(offsets[other])..<Int(offsets[other + 1])]
                    if known.count == token.count, known.elementsEqual(token) { break }
                    slot = (slot + 1) & mask
                }
                if slots[slot] < 0 { slots[slot] = Int32(truncatingIfNeeded: id) }
            }
        }
    }

    /// Id of the token with these bytes.
    func id(of bytes: [UInt8]) -> Int? { bytes.withUnsafeBufferPointer { id(of: $0) } }

    /// Id of the token with these bytes.
    func id(of bytes: UnsafeBufferPointer<UInt8>) -> Int? {
        tokenBytes.withUnsafeBufferPointer { all in
            var slot = Int(truncatingIfNeeded: VocabularyIndex.hash(bytes)) & mask
            while slots[slot] >= 0 {
                let other = Int(slots[slot])
                let known = all[Int(offsets[other])..<Int(offsets[other + 1])]
                if known.count == bytes.count, known.elementsEqual(bytes) { return other }
                slot = (slot + 1) & mask
            }
            return nil
        }
    }

    @inline(__always)
    private static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash ^ hash >> 29
    }
}
