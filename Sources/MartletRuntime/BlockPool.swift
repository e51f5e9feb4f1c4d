// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reference-counted pages of the KV arena, shared by all KV groups; pure bookkeeping.
///
/// Free pages form a queue. A page may carry a tag that says what it holds; it keeps it while free, so
/// that its owner can revive it, until it is taken: those without a tag first, then the longest free.
package struct BlockPool: Sendable {
    /// Pages of the arena.
    package let pageCount: Int
    /// Pages that nobody holds.
    package private(set) var freeCount: Int
    /// Those of them that carry a tag.
    package private(set) var cachedCount = 0
    private var references: [Int32]
    /// What pages hold, -1 for nothing of note.
    private var tags: [Int]
    /// Doubly linked ring of free pages; element `pageCount` is its anchor.
    private var next: [Int32]
    private var previous: [Int32]

    /// All pages free.
    package init(pageCount: Int) {
        let count = min(max(pageCount, 0), Int(Int32.max) - 1)
        self.pageCount = count
        freeCount = count
        references = [Int32](repeating: 0, count: count)
        tags = [Int](repeating: -1, count: count)
        next = (0...count).map { Int32(($0 + 1) % (count + 1)) }
        previous = (0...count).map { Int32(($0 + count) % (count + 1)) }
    }

    /// Takes a free page, with one reference: one without a tag, else the longest free; nil if none is free.
    ///
    /// - Parameter lostTag: Becomes the tag that the page carried and has no more; -1 for none.
    package mutating func allocate(lostTag: inout Int) -> Int32? {
        let page = next[pageCount]
        guard Int(page) != pageCount else { return nil }
        unlink(page)
        lostTag = tags[Int(page)]
        tags[Int(page)] = -1
        references[Int(page)] = 1
        return page
    }

    /// Adds a reference to a page, reviving a free one.
    package mutating func retain(_ page: Int32) {
        guard isPage(page) else { return }
        if references[Int(page)] == 0 { unlink(page) }
        references[Int(page)] += 1
    }

    /// Drops a reference; the last one frees the page.
    ///
    /// - Returns: False if nobody held the page; nothing changes then.
    @discardableResult
    package mutating func release(_ page: Int32) -> Bool {
        guard isPage(page), references[Int(page)] > 0 else { return false }
        references[Int(page)] -= 1
        if references[Int(page)] == 0 { link(page) }
        return true
    }

    /// How many hold the page.
    package func referenceCount(_ page: Int32) -> Int {
        isPage(page) ? Int(references[Int(page)]) : 0
    }

    /// What the page holds, -1 for nothing of note.
    package func tag(_ page: Int32) -> Int { isPage(page) ? tags[Int(page)] : -1 }

    /// Says what a page holds; -1 for nothing of note.
    package mutating func setTag(_ page: Int32, _ tag: Int) {
        guard isPage(page) else { return }
        let changesPlace = references[Int(page)] == 0 && (tag >= 0) != isTagged(page)
        if changesPlace { unlink(page) }
        tags[Int(page)] = tag
        if changesPlace { link(page) }
    }

    /// Describes the first broken invariant; nil if all hold.
    package func checkInvariants() -> String? {
        var seen = [Bool](repeating: false, count: pageCount)
        var count = 0
        var page = next[pageCount]
        while Int(page) != pageCount {
            if seen[Int(page)] { return "page \(page) is free twice" }
            if references[Int(page)] != 0 { return "page \(page) is free and held" }
            if next[Int(previous[Int(page)])] != page { return "page \(page) is linked wrongly" }
            if !isTagged(page), count > 0, isTagged(previous[Int(page)]) {
                return "page \(page) of nothing is behind one of something"
            }
            seen[Int(page)] = true
            count += 1
            page = next[Int(page)]
        }
        if count != freeCount { return "\(count) pages are free, \(freeCount) counted" }
        let cached = (0..<pageCount).count { references[$0] == 0 && tags[$0] >= 0 }
        if cached != cachedCount { return "\(cached) pages are cached, \(cachedCount) counted" }
        for page in 0..<pageCount {
            if references[page] < 0 { return "page \(page) has \(references[page]) references" }
            if references[page] == 0, !seen[page] { return "page \(page) is lost" }
        }
        return nil
    }

    private func isTagged(_ page: Int32) -> Bool { tags[Int(page)] >= 0 }

    private func isPage(_ page: Int32) -> Bool { page >= 0 && Int(page) < pageCount }

    private mutating func unlink(_ page: Int32) {
        let (before, after) = (previous[Int(page)], next[Int(page)])
        next[Int(before)] = after
        previous[Int(after)] = before
        freeCount -= 1
        if isTagged(page) { cachedCount -= 1 }
    }

    /// Puts a page in the queue: a tagged one behind all others, another one in front.
    private mutating func link(_ page: Int32) {
        let anchor = Int32(pageCount)
        let before = isTagged(page) ? previous[pageCount] : anchor
        let after = next[Int(before)]
        next[Int(before)] = page
        previous[Int(page)] = before
        next[Int(page)] = after
        previous[Int(after)] = page
        freeCount += 1
        if isTagged(page) { cachedCount += 1 }
    }
}
