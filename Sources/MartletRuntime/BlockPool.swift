// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reference-counted pages of the KV arena, shared by all KV groups; pure bookkeeping.
///
/// Free pages form a queue: the longest free is taken first. A page may carry the hash of its
/// content; it keeps it while free, so `find` and `retain` can revive it until it is taken.
package struct BlockPool: Sendable {
    /// Pages of the arena.
    package let pageCount: Int
    /// Pages that nobody holds.
    package private(set) var freeCount: Int
    private var references: [Int32]
    private var contents: [UInt64?]
    private var pagesByContent: [UInt64: Int32] = [:]
    /// Doubly linked ring of free pages; element `pageCount` is its anchor.
    private var next: [Int32]
    private var previous: [Int32]

    /// All pages free.
    package init(pageCount: Int) {
        let count = min(max(pageCount, 0), Int(Int32.max) - 1)
        self.pageCount = count
        freeCount = count
        references = [Int32](repeating: 0, count: count)
        contents = [UInt64?](repeating: nil, count: count)
        next = (0...count).map { Int32(($0 + 1) % (count + 1)) }
        previous = (0...count).map { Int32(($0 + count) % (count + 1)) }
    }

    /// Takes the page that has been free for longest, with one reference; nil if none is free.
    package mutating func allocate() -> Int32? {
        let page = next[pageCount]
        guard Int(page) != pageCount else { return nil }
        unlink(page)
        forgetContent(page)
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
        if references[Int(page)] == 0 { append(page) }
        return true
    }

    /// How many hold the page.
    package func referenceCount(_ page: Int32) -> Int {
        isPage(page) ? Int(references[Int(page)]) : 0
    }

    /// Names a held page's content, for reuse by requests with the same prefix.
    ///
    /// The first page of a name keeps it.
    package mutating func seal(_ page: Int32, content: UInt64) {
        guard isPage(page), references[Int(page)] > 0, pagesByContent[content] == nil else {
            return
        }
        forgetContent(page)
        contents[Int(page)] = content
        pagesByContent[content] = page
    }

    /// The page with this content, held or free.
    package func find(content: UInt64) -> Int32? { pagesByContent[content] }

    /// Describes the first broken invariant; nil if all hold.
    package func checkInvariants() -> String? {
        var seen = [Bool](repeating: false, count: pageCount)
        var count = 0
        var page = next[pageCount]
        while Int(page) != pageCount {
            if seen[Int(page)] { return "page \(page) is free twice" }
            if references[Int(page)] != 0 { return "page \(page) is free and held" }
            if next[Int(previous[Int(page)])] != page { return "page \(page) is linked wrongly" }
            seen[Int(page)] = true
            count += 1
            page = next[Int(page)]
        }
        if count != freeCount { return "\(count) pages are free, \(freeCount) counted" }
        for page in 0..<pageCount {
            if references[page] < 0 { return "page \(page) has \(references[page]) references" }
            if references[page] == 0, !seen[page] { return "page \(page) is lost" }
            if let content = contents[page], pagesByContent[content] != Int32(page) {
                return "page \(page) has a content that is not listed"
            }
        }
        for (content, page) in pagesByContent where contents[Int(page)] != content {
            return "page \(page) is listed for a content it lacks"
        }
        return nil
    }

    private func isPage(_ page: Int32) -> Bool { page >= 0 && Int(page) < pageCount }

    private mutating func forgetContent(_ page: Int32) {
        guard let content = contents[Int(page)] else { return }
        pagesByContent[content] = nil
        contents[Int(page)] = nil
    }

    private mutating func unlink(_ page: Int32) {
        let (before, after) = (previous[Int(page)], next[Int(page)])
        next[Int(before)] = after
        previous[Int(after)] = before
        freeCount -= 1
    }

    private mutating func append(_ page: Int32) {
        let anchor = Int32(pageCount)
        let last = previous[pageCount]
        next[Int(last)] = page
        previous[Int(page)] = last
        next[Int(page)] = anchor
        previous[pageCount] = page
        freeCount += 1
    }
}
