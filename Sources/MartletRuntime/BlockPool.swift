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
    /// By page, in one place what is looked at together; element `pageCount` is the anchor of the queue.
    private var pages: [Page]

    private struct Page: Sendable {
        var references: Int32 = 0
        /// Neighbours in the doubly linked ring of free pages.
        var next: Int32
        var previous: Int32
        /// What it holds, -1 for nothing of note.
        var tag = -1
    }

    /// All pages free.
    package init(pageCount: Int) {
        let count = min(max(pageCount, 0), Int(Int32.max) - 1)
        self.pageCount = count
        freeCount = count
        pages = (0...count).map {
            Page(next: Int32(($0 + 1) % (count + 1)), previous: Int32(($0 + count) % (count + 1)))
        }
    }

    /// Takes a free page, with one reference: one without a tag, else the longest free; nil if none is free.
    ///
    /// - Parameter lostTag: Becomes the tag that the page carried and has no more; -1 for none.
    package mutating func allocate(lostTag: inout Int) -> Int32? {
        let page = pages[pageCount].next
        guard Int(page) != pageCount else { return nil }
        unlink(page)
        lostTag = pages[Int(page)].tag
        pages[Int(page)].tag = -1
        pages[Int(page)].references = 1
        return page
    }

    /// Adds a reference to a page, reviving a free one.
    package mutating func retain(_ page: Int32) {
        guard isPage(page) else { return }
        if pages[Int(page)].references == 0 { unlink(page) }
        pages[Int(page)].references += 1
    }

    /// Drops a reference; the last one frees the page.
    ///
    /// - Returns: False if nobody held the page; nothing changes then.
    @discardableResult
    package mutating func release(_ page: Int32) -> Bool {
        guard isPage(page), pages[Int(page)].references > 0 else { return false }
        pages[Int(page)].references -= 1
        if pages[Int(page)].references == 0 { link(page) }
        return true
    }

    /// How many hold the page.
    package func referenceCount(_ page: Int32) -> Int {
        isPage(page) ? Int(pages[Int(page)].references) : 0
    }

    /// What the page holds, -1 for nothing of note.
    package func tag(_ page: Int32) -> Int { isPage(page) ? pages[Int(page)].tag : -1 }

    /// Says what a page holds; -1 for nothing of note.
    package mutating func setTag(_ page: Int32, _ tag: Int) {
        guard isPage(page) else { return }
        let changesPlace = pages[Int(page)].references == 0 && (tag >= 0) != isTagged(page)
        if changesPlace { unlink(page) }
        pages[Int(page)].tag = tag
        if changesPlace { link(page) }
    }

    /// Describes the first broken invariant; nil if all hold.
    package func checkInvariants() -> String? {
        var seen = [Bool](repeating: false, count: pageCount)
        var count = 0
        var page = pages[pageCount].next
        while Int(page) != pageCount {
            if seen[Int(page)] { return "page \(page) is free twice" }
            if pages[Int(page)].references != 0 { return "page \(page) is free and held" }
            if pages[Int(pages[Int(page)].previous)].next != page {
                return "page \(page) is linked wrongly"
            }
            if !isTagged(page), count > 0, isTagged(pages[Int(page)].previous) {
                return "page \(page) of nothing is behind one of something"
            }
            seen[Int(page)] = true
            count += 1
            page = pages[Int(page)].next
        }
        if count != freeCount { return "\(count) pages are free, \(freeCount) counted" }
        let cached = (0..<pageCount).count { pages[$0].references == 0 && pages[$0].tag >= 0 }
        if cached != cachedCount { return "\(cached) pages are cached, \(cachedCount) counted" }
        for page in 0..<pageCount {
            if pages[page].references < 0 {
                return "page \(page) has \(pages[page].references) references"
            }
            if pages[page].references == 0, !seen[page] { return "page \(page) is lost" }
        }
        return nil
    }

    private func isTagged(_ page: Int32) -> Bool { pages[Int(page)].tag >= 0 }

    private func isPage(_ page: Int32) -> Bool { page >= 0 && Int(page) < pageCount }

    private mutating func unlink(_ page: Int32) {
        let (before, after) = (pages[Int(page)].previous, pages[Int(page)].next)
        pages[Int(before)].next = after
        pages[Int(after)].previous = before
        freeCount -= 1
        if isTagged(page) { cachedCount -= 1 }
    }

    /// Puts a page in the queue: a tagged one behind all others, another one in front.
    private mutating func link(_ page: Int32) {
        let anchor = Int32(pageCount)
        let before = isTagged(page) ? pages[pageCount].previous : anchor
        let after = pages[Int(before)].next
        pages[Int(before)].next = page
        pages[Int(page)].previous = before
        pages[Int(page)].next = after
        pages[Int(after)].previous = page
        freeCount += 1
        if isTagged(page) { cachedCount += 1 }
    }
}
