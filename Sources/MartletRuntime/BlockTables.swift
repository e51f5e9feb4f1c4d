// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Block tables of all requests by slot and KV group, in one piece of memory: every step walks over them.
package struct BlockTables: Sendable {
    /// `[slots, groups]`.
    private var all: [BlockTable] = []
    /// Tables of each slot.
    private let groupCount: Int

    init(groupCount: Int) { self.groupCount = groupCount }

    /// The table of a request in a group.
    package internal(set) subscript(slot: Int, group: Int) -> BlockTable {
        _read { yield all[slot * groupCount + group] }
        _modify { yield &all[slot * groupCount + group] }
    }

    /// The tables of a request, one per group.
    package internal(set) subscript(slot: Int) -> [BlockTable] {
        get { Array(all[place(slot)]) }
        set { all.replaceSubrange(place(slot), with: newValue) }
    }

    /// The tables, read in place.
    struct InPlace {
        fileprivate let first: UnsafePointer<BlockTable>
        fileprivate let groupCount: Int

        @inline(__always)
        subscript(slot: Int, group: Int) -> UnsafePointer<BlockTable> {
            first + (slot &* groupCount &+ group)
        }
    }

    /// Lets the tables be read in place; not called where there are none.
    func withTables(_ body: (InPlace) throws -> Void) rethrows {
        try all.withUnsafeBufferPointer { tables in
            guard let first = tables.baseAddress else { return }
            try body(InPlace(first: first, groupCount: groupCount))
        }
    }

    /// Makes room for one slot more.
    mutating func addSlot() {
        all.append(contentsOf: repeatElement(BlockTable(), count: groupCount))
    }

    private func place(_ slot: Int) -> Range<Int> {
        slot * groupCount..<(slot + 1) * groupCount
    }
}
