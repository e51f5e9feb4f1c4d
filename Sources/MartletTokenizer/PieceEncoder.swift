// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Turns pieces into ids, with memory to work in and a cache of pieces seen; used by one thread at
/// a time.
final class PieceEncoder {
    private struct Entry {
        var low: UInt64
        var high: UInt64
        /// The id, or where the ids start in `cachedIDs`.
        var value: UInt32
        /// Length of the piece in the low byte, count of ids above; 0 is free.
        var meta: UInt32
    }

    private static let shortCount = 64
    private static let maxEntryCount = 1 << 16
    private let model: BytePairModel
    private var entries: [Entry]
    private var entryCount = 0
    private var cachedIDs: [UInt32] = []
    private let ids: UnsafeMutablePointer<UInt32>
    private let ranks: UnsafeMutablePointer<UInt64>

    init(_ model: BytePairModel) {
        self.model = model
        entries = PieceEncoder.emptyEntries(1 << 12)
        ids = .allocate(capacity: PieceEncoder.shortCount)
        ranks = .allocate(capacity: PieceEncoder.shortCount)
    }

    deinit {
        ids.deallocate()
        ranks.deallocate()
    }

    private static func emptyEntries(_ count: Int) -> [Entry] {
        [Entry](repeating: Entry(low: 0, high: 0, value: 0, meta: 0), count: count)
    }

    /// Appends the ids of a piece.
    ///
    /// - Parameters:
    ///   - bytes: Start of the piece.
    ///   - count: Its length, at least 1.
    ///   - readable: Bytes that may be read from `bytes` on.
    @inline(__always)
    func encode(_ bytes: UnsafePointer<UInt8>, count: Int, readable: Int, into output: inout [Int])
    {
        if count > 16 {
            encodeUncached(bytes, count, &output)
            return
        }
        var low: UInt64 = 0
        var high: UInt64 = 0
        if readable >= 16 {
            let raw = UnsafeRawPointer(bytes)
            low = raw.loadUnaligned(as: UInt64.self)
            if count <= 8 {
                low &= UInt64.max >> UInt64(64 - 8 * count)
            } else {
                high =
                    raw.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                    & (UInt64.max >> UInt64(128 - 8 * count))
            }
        } else {
            for offset in 0..<min(count, 8) { low |= UInt64(bytes[offset]) << UInt64(8 * offset) }
            for offset in 8..<max(count, 8) {
                high |= UInt64(bytes[offset]) << UInt64(8 * (offset - 8))
            }
        }
        let mask = entries.count - 1
        var hash = (low ^ high &* 0xC2B2_AE3D_27D4_EB4F ^ UInt64(count)) &* 0x9E37_79B9_7F4A_7C15
        hash ^= hash >> 32
        var slot = Int(truncatingIfNeeded: hash) & mask
        let isKnown = entries.withUnsafeBufferPointer { entries in
            while entries[slot].meta != 0 {
                let entry = entries[slot]
                if entry.low == low, entry.high == high, Int(entry.meta & 255) == count {
                    let idCount = Int(entry.meta >> 8)
                    if idCount == 1 {
                        output.append(Int(entry.value))
                    } else {
                        for index in 0..<idCount {
                            output.append(Int(cachedIDs[Int(entry.value) + index]))
                        }
                    }
                    return true
                }
                slot = (slot + 1) & mask
            }
            return false
        }
        if !isKnown { encodeAndCache(bytes, count, low, high, slot, &output) }
    }

    @inline(never)
    private func encodeAndCache(
        _ bytes: UnsafePointer<UInt8>, _ count: Int, _ low: UInt64, _ high: UInt64, _ slot: Int,
        _ output: inout [Int]
    ) {
        let start = output.count
        encodeUncached(bytes, count, &output)
        let idCount = output.count - start
        var value = UInt32(truncatingIfNeeded: cachedIDs.count)
        if idCount == 1 {
            value = UInt32(truncatingIfNeeded: output[start])
        } else {
            for id in output[start...] { cachedIDs.append(UInt32(truncatingIfNeeded: id)) }
        }
        entries[slot] = Entry(
            low: low, high: high, value: value, meta: UInt32(count | idCount << 8))
        entryCount += 1
        if entryCount * 2 >= entries.count { grow() }
    }

    private func grow() {
        if entries.count >= PieceEncoder.maxEntryCount {
            entries = PieceEncoder.emptyEntries(entries.count)
            cachedIDs.removeAll(keepingCapacity: true)
            entryCount = 0
            return
        }
        let old = entries
        entries = PieceEncoder.emptyEntries(old.count * 4)
        let mask = entries.count - 1
        for entry in old where entry.meta != 0 {
            let count = UInt64(entry.meta & 255)
            var hash =
                (entry.low ^ entry.high &* 0xC2B2_AE3D_27D4_EB4F ^ count) &* 0x9E37_79B9_7F4A_7C15
            hash ^= hash >> 32
            var slot = Int(truncatingIfNeeded: hash) & mask
            while entries[slot].meta != 0 { slot = (slot + 1) & mask }
            entries[slot] = entry
        }
    }

    private func encodeUncached(_ bytes: UnsafePointer<UInt8>, _ count: Int, _ output: inout [Int])
    {
        if model.ignoresMerges,
            let id = model.index.id(of: UnsafeBufferPointer(start: bytes, count: count))
        {
            output.append(id)
            return
        }
        if count > PieceEncoder.shortCount {
            LongPiece.encode(bytes, count, model, into: &output)
            return
        }
        var length = 0
        for offset in 0..<count {
            let id = model.id(ofByte: bytes[offset])
            if id >= 0 {
                ids[length] = UInt32(id)
                length += 1
            }
        }
        guard length > 0 else { return }
        for index in 0..<(length - 1) { ranks[index] = model.merge(ids[index], ids[index + 1]) }
        while length > 1 {
            var best = BytePairModel.noMerge
            var at = 0
            for index in 0..<(length - 1) where ranks[index] < best {
                best = ranks[index]
                at = index
            }
            if best == BytePairModel.noMerge { break }
            ids[at] = UInt32(truncatingIfNeeded: best)
            length -= 1
            for index in (at + 1)..<max(length, at + 1) { ids[index] = ids[index + 1] }
            for index in (at + 1)..<max(length - 1, at + 1) { ranks[index] = ranks[index + 1] }
            if at > 0 { ranks[at - 1] = model.merge(ids[at - 1], ids[at]) }
            if at + 1 < length { ranks[at] = model.merge(ids[at], ids[at + 1]) }
        }
        for index in 0..<length { output.append(Int(ids[index])) }
    }
}
