// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Byte-pair merging of a long piece: a linked list and a heap of candidates, n log n.
enum LongPiece {
    /// Longer pieces are cut here, so that positions fit 32 bits.
    private static let maxCount = 1 << 28

    static func encode(
        _ bytes: UnsafePointer<UInt8>, _ count: Int, _ model: BytePairModel,
        into output: inout [Int]
    ) {
        var start = 0
        while start < count {
            let length = min(maxCount, count - start)
            encodePart(bytes + start, length, model, &output)
            start += length
        }
    }

    private static func encodePart(
        _ bytes: UnsafePointer<UInt8>, _ count: Int, _ model: BytePairModel, _ output: inout [Int]
    ) {
        var ids = [UInt32](unsafeUninitializedCapacity: count) { buffer, length in
            length =
                buffer.baseAddress.map { model.symbols(of: bytes, count: count, into: $0) } ?? 0
        }
        let length = ids.count
        guard length > 0 else { return }
        // -1 as `next` marks the end, -2 a symbol that was merged away.
        var next = (0..<length).map { Int32(truncatingIfNeeded: $0 + 1) }
        var previous = (0..<length).map { Int32(truncatingIfNeeded: $0 - 1) }
        next[length - 1] = -1
        var heap = CandidateHeap()
        for index in 0..<(length - 1) {
            heap.collect(rank: model.merge(ids[index], ids[index + 1]), position: index)
        }
        heap.order()
        while let (rank, position) = heap.pop() {
            let right = Int(next[position])
            guard right >= 0 else { continue }
            let merge = model.merge(ids[position], ids[right])
            guard merge != BytePairModel.noMerge, merge >> 32 == rank else { continue }
            ids[position] = UInt32(truncatingIfNeeded: merge)
            let after = next[right]
            next[position] = after
            next[right] = -2
            if after >= 0 {
                previous[Int(after)] = Int32(truncatingIfNeeded: position)
                heap.push(rank: model.merge(ids[position], ids[Int(after)]), position: position)
            }
            let before = Int(previous[position])
            if before >= 0 {
                heap.push(rank: model.merge(ids[before], ids[position]), position: before)
            }
        }
        var position = 0
        var kept = 0
        while position >= 0 {
            ids[kept] = ids[position]
            kept += 1
            position = Int(next[position])
        }
        ids.withUnsafeBufferPointer { ids in
            model.append(
                UnsafeBufferPointer(rebasing: ids[..<kept]), of: bytes, count: count, to: &output)
        }
    }
}

/// Binary heap of (rank, position), least first.
private struct CandidateHeap {
    private var items: [UInt64] = []

    /// Adds without keeping order; `order()` must follow.
    mutating func collect(rank merge: UInt64, position: Int) {
        if merge != BytePairModel.noMerge { items.append((merge >> 32) << 32 | UInt64(position)) }
    }

    mutating func order() { items.sort() }

    mutating func push(rank merge: UInt64, position: Int) {
        guard merge != BytePairModel.noMerge else { return }
        let item = (merge >> 32) << 32 | UInt64(position)
        var hole = items.count
        items.append(item)
        while hole > 0 {
            let parent = (hole - 1) / 2
            if items[parent] <= item { break }
            items[hole] = items[parent]
            hole = parent
        }
        items[hole] = item
    }

    mutating func pop() -> (rank: UInt64, position: Int)? {
        guard let first = items.first, let last = items.popLast() else { return nil }
        if !items.isEmpty {
            let count = items.count
            var hole = 0
            while true {
                var child = hole * 2 + 1
                if child >= count { break }
                if child + 1 < count, items[child + 1] < items[child] { child += 1 }
                if items[child] >= last { break }
                items[hole] = items[child]
                hole = child
            }
            items[hole] = last
        }
        return (first >> 32, Int(first & 0xFFFF_FFFF))
    }
}
