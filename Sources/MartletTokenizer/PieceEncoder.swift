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
    private static let firstCapacity = 1 << 12
    private static let maxCapacity = 1 << 16
    private let model: BytePairModel
    private var entries: UnsafeMutablePointer<Entry>
    private var capacity = PieceEncoder.firstCapacity
    private var entryCount = 0
    private var cachedIDs: [UInt32] = []
    private let ids: UnsafeMutablePointer<UInt32>
    private let ranks: UnsafeMutablePointer<UInt64>

    init(_ model: BytePairModel) {
        self.model = model
        entries = PieceEncoder.emptyEntries(PieceEncoder.firstCapacity)
        ids = .allocate(capacity: PieceEncoder.shortCount)
        ranks = .allocate(capacity: PieceEncoder.shortCount)
    }

    deinit {
        entries.deallocate()
        ids.deallocate()
        ranks.deallocate()
    }

    private static func emptyEntries(_ count: Int) -> UnsafeMutablePointer<Entry> {
        let entries = UnsafeMutablePointer<Entry>.allocate(capacity: count)
        entries.initialize(repeating: Entry(low: 0, high: 0, value: 0, meta: 0), count: count)
        return entries
    }

    @inline(__always)
    private static func slot(_ low: UInt64, _ high: UInt64, _ count: Int, _ capacity: Int) -> Int {
        var hash = (low ^ high &* 0xC2B2_AE3D_27D4_EB4F ^ UInt64(count)) &* 0x9E37_79B9_7F4A_7C15
        hash ^= hash >> 32
        return Int(truncatingIfNeeded: hash) & (capacity - 1)
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
        let entries = entries
        let mask = capacity - 1
        var slot = PieceEncoder.slot(low, high, count, capacity)
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
                return
            }
            slot = (slot + 1) & mask
        }
        encodeAndCache(bytes, count, low, high, slot, &output)
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
        if entryCount * 2 >= capacity { grow() }
    }

    /// Makes room; a cache that is large enough starts anew.
    private func grow() {
        let (old, oldCapacity) = (entries, capacity)
        defer { old.deallocate() }
        if capacity >= PieceEncoder.maxCapacity {
            entries = PieceEncoder.emptyEntries(capacity)
            cachedIDs.removeAll(keepingCapacity: true)
            entryCount = 0
            return
        }
        capacity *= 4
        entries = PieceEncoder.emptyEntries(capacity)
        for index in 0..<oldCapacity where old[index].meta != 0 {
            let entry = old[index]
            var slot = PieceEncoder.slot(entry.low, entry.high, Int(entry.meta & 255), capacity)
            while entries[slot].meta != 0 { slot = (slot + 1) & (capacity - 1) }
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
        var length = model.symbols(of: bytes, count: count, into: ids)
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
        model.append(
            UnsafeBufferPointer(start: ids, count: length), of: bytes, count: count, to: &output)
    }
}
