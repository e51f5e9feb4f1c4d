// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds the id of a token by its bytes: open addressing over the description's flat arrays.
struct VocabularyIndex: Sendable {
    private let tokenBytes: [UInt8]
    private let offsets: [UInt32]
    /// High half of the hash and id; all ones where free.
    private var slots: [UInt64]
    private let mask: Int
    private static let free = UInt64.max

    /// Indexes the tokens that the filter keeps; of two with the same bytes the lower id is found.
    init(_ description: TokenizerDescription, where isIndexed: (Int) -> Bool) {
        tokenBytes = description.tokenBytes
        offsets = description.tokenOffsets
        let count = min(description.vocabularySize, Int(Int32.max))
        var capacity = 16
        while capacity < count * 2 { capacity *= 2 }
        mask = capacity - 1
        slots = [UInt64](repeating: Self.free, count: capacity)
        for id in 0..<count where isIndexed(id) {
            let range = Int(offsets[id])..<Int(offsets[id + 1])
            let (slot, known, hash) = tokenBytes.withUnsafeBufferPointer {
                find(UnsafeBufferPointer(rebasing: $0[range]))
            }
            if known == nil { slots[slot] = (hash >> 32) << 32 | UInt64(id) }
        }
    }

    /// Id of the token with these bytes.
    func id(of bytes: [UInt8]) -> Int? { bytes.withUnsafeBufferPointer { id(of: $0) } }

    /// Id of the token with these bytes.
    func id(of bytes: UnsafeBufferPointer<UInt8>) -> Int? { find(bytes).id }

    /// Where the bytes are, or would be.
    private func find(_ bytes: UnsafeBufferPointer<UInt8>) -> (slot: Int, id: Int?, hash: UInt64) {
        let hash = VocabularyIndex.hash(bytes)
        var slot = Int(truncatingIfNeeded: hash) & mask
        return tokenBytes.withUnsafeBufferPointer { all in
            while slots[slot] != Self.free {
                let entry = slots[slot]
                let id = Int(entry & 0xFFFF_FFFF)
                if entry >> 32 == hash >> 32 {
                    let start = Int(offsets[id])
                    let count = Int(offsets[id + 1]) - start
                    if count == bytes.count,
                        VocabularyIndex.isEqual(all.baseAddress, start, bytes.baseAddress, count)
                    {
                        return (slot, id, hash)
                    }
                }
                slot = (slot + 1) & mask
            }
            return (slot, nil, hash)
        }
    }

    @inline(__always)
    private static func isEqual(
        _ all: UnsafePointer<UInt8>?, _ start: Int, _ bytes: UnsafePointer<UInt8>?, _ count: Int
    ) -> Bool {
        guard let all, let bytes else { return count == 0 }
        for offset in 0..<count where all[start + offset] != bytes[offset] { return false }
        return true
    }

    /// Eight bytes at a time; the high half tells entries of a slot apart.
    @inline(__always)
    private static func hash(_ bytes: UnsafeBufferPointer<UInt8>) -> UInt64 {
        let raw = UnsafeRawBufferPointer(bytes)
        var hash = UInt64(truncatingIfNeeded: bytes.count) &* 0x9E37_79B9_7F4A_7C15
        var offset = 0
        while offset < bytes.count {
            var word: UInt64 = 0
            if bytes.count - offset >= 8 {
                word = raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            } else {
                for place in offset..<bytes.count {
                    word |= UInt64(bytes[place]) << UInt64(8 * (place - offset))
                }
            }
            hash = (hash ^ word) &* 0xC2B2_AE3D_27D4_EB4F
            hash ^= hash >> 29
            offset += 8
        }
        // The last value of the high half marks a free slot.
        return hash >> 32 == 0xFFFF_FFFF ? hash >> 1 : hash
    }
}
