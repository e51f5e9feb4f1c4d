// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Beginnings of prompts whose KV pages are still in the arena, as a tree of blocks.
///
/// A node is one block of tokens after its parent's; it names a page, or several, per KV group. It
/// holds no reference: a page of a node may be free, and taken, by anyone. A node dies when it
/// loses a page that every continuation needs; a page that had left a group's window may be missing.
/// Tokens are compared, not only hashes. A node may hold fewer tokens than a block, the end of a
/// request; it has no children, and its pages are copied before use.
package struct PrefixCache: Sendable {
    /// A place in the tree that may have died since.
    package struct Handle: Sendable, Hashable {
        var node: Int32
        var generation: UInt32
    }

    /// What is known of a prompt.
    package struct Match: Sendable {
        /// Positions whose keys and values are there in whole blocks.
        package var positions = 0
        /// Nodes of the whole blocks, from the first on.
        var path: [Int32] = []
        /// Node whose first tokens go on from there, and how many of them fit.
        var partial: (node: Int32, count: Int)?
        /// Where the whole blocks end.
        var end = PrefixCache.root
    }

    struct Key: Hashable {
        let parent: Int32
        let hash: Int
    }

    /// KV groups.
    let groups: [KVGroup]
    /// Tokens of a node: the smallest number that all groups' blocks divide.
    package let span: Int
    /// First page of each group in a node's pages, and their number at the end.
    let firstPage: [Int]
    private var nodes: PrefixNodes
    private var byKey: [Key: Int32] = [:]
    /// Nodes that are being removed; kept for its memory.
    private var pending: [Int32] = []
    /// Blocks known.
    package var nodeCount: Int { nodes.count }

    /// Children looked at for a partial match; the newest are kept at the end.
    private static let partialLimit = 64

    /// An empty tree.
    package init(groups: [KVGroup]) {
        self.groups = groups
        var span = 1
        for group in groups { span = Self.leastCommonMultiple(span, max(group.blockSize, 1)) }
        self.span = span
        var first = [0]
        for group in groups {
            first.append(first[first.count - 1] + span / max(group.blockSize, 1))
        }
        firstPage = first
        nodes = PrefixNodes(span: span, pageCount: first[first.count - 1])
    }

    /// Before the first block.
    package static let root = Handle(node: 0, generation: 0)

    private static func leastCommonMultiple(_ a: Int, _ b: Int) -> Int {
        var (x, y) = (a, b)
        while y != 0 { (x, y) = (y, x % y) }
        return a / x * b
    }

    /// Finds the longest beginning of a prompt that leaves at least its last token to compute.
    ///
    /// - Parameter salt: Prompts meet only those of the same salt.
    package func match(_ tokens: [Int32], salt: String) -> Match {
        var match = Match()
        var node = Self.root.node
        var walked: [Int32] = []
        while (walked.count + 1) * span < tokens.count {
            let start = walked.count * span
            guard let child = child(of: node, tokens[start..<start + span], salt) else { break }
            walked.append(child)
            node = child
        }
        var length = walked.count
        while length > 0, !covers(walked, length) { length -= 1 }
        match.path = Array(walked[..<length])
        match.positions = length * span
        if length > 0 { match.end = handle(walked[length - 1]) }
        let rest = tokens[match.positions..<max(tokens.count - 1, match.positions)]
        match.partial = partial(after: match.end.node, rest, salt)
        return match
    }

    /// Whether the pages that position `length * span` attends to are all there.
    private func covers(_ path: [Int32], _ length: Int) -> Bool {
        for (index, group) in groups.enumerated() where group.window != nil {
            let first = max(length * span - max(group.window ?? 1, 1) + 1, 0)
            for block in first / group.blockSize..<length * span / group.blockSize {
                let perNode = span / group.blockSize
                let page = firstPage[index] + block % perNode
                if nodes.page(path[block / perNode], page) < 0 { return false }
            }
        }
        return true
    }

    /// The child that shares most tokens; only where all groups page alike.
    private func partial(
        after node: Int32, _ tokens: ArraySlice<Int32>, _ salt: String
    ) -> (node: Int32, count: Int)? {
        guard firstPage[firstPage.count - 1] == groups.count, !tokens.isEmpty else { return nil }
        var best: (node: Int32, count: Int)?
        var (child, looks) = (nodes[node].newestChild, 0)
        while child >= 0, looks < Self.partialLimit {
            let candidate = child
            (child, looks) = (nodes[child].older, looks + 1)
            guard nodes.hasSalt(candidate, salt), nodes.isWhole(candidate) else { continue }
            let count = nodes.commonTokens(candidate, tokens)
            if count > best?.count ?? 0 { best = (candidate, count) }
            if count == tokens.count { break }
        }
        return best
    }

    /// Adds the block after a place, or finds it there.
    ///
    /// - Parameters:
    ///   - tokens: A block, or fewer at the end of a request.
    ///   - pages: As a node holds them; -1 for those that are gone.
    /// - Returns: The block's place; nil if the parent died or pages that all need are gone.
    package mutating func insert(
        after parent: Handle, tokens: ArraySlice<Int32>, salt: String, pages: [Int32],
        pool: inout BlockPool
    ) -> Handle? {
        guard isLive(parent), !tokens.isEmpty, pages.count == nodes.pageCount else {
            return nil
        }
        let hash = Self.hash(tokens, salt)
        if let known = child(of: parent.node, hash, tokens, salt) {
            for index in pages.indices
            where nodes.page(known, index) < 0 && pool.tag(pages[index]) < 0 {
                setPage(known, index, pages[index], &pool)
            }
            return handle(known)
        }
        // Two blocks of one hash: the first keeps it.
        let key = Key(parent: parent.node, hash: hash)
        guard byKey[key] == nil, hasAllThatNeed(pages, isEnd: tokens.count < span, pool) else {
            return nil
        }
        let node = nodes.add(to: parent.node, tokens: tokens, salt: salt, hash: hash)
        byKey[key] = node
        // A page that another node names stays that node's.
        for index in pages.indices where pool.tag(pages[index]) < 0 {
            setPage(node, index, pages[index], &pool)
        }
        return handle(node)
    }

    /// Whether the pages of all groups without a window are there and nobody else's; of an end, which leads to nothing, all.
    private func hasAllThatNeed(_ pages: [Int32], isEnd: Bool, _ pool: BlockPool) -> Bool {
        groups.indices.allSatisfy { group in
            groups[group].window != nil && !isEnd
                || pages[firstPage[group]..<firstPage[group + 1]].allSatisfy {
                    $0 >= 0 && pool.tag($0) < 0
                }
        }
    }

    private mutating func setPage(
        _ node: Int32, _ index: Int, _ page: Int32, _ pool: inout BlockPool
    ) {
        nodes.setPage(node, index, page)
        if page >= 0 { pool.setTag(page, tag(node, index)) }
    }

    private func tag(_ node: Int32, _ index: Int) -> Int {
        Int(node) * nodes.pageCount + index
    }

    /// Takes note that a page was taken for something else.
    package mutating func forget(tag: Int, pool: inout BlockPool) {
        guard tag >= 0, nodes.pageCount > 0 else { return }
        let (place, index) = tag.quotientAndRemainder(dividingBy: nodes.pageCount)
        let node = Int32(truncatingIfNeeded: place)
        nodes.setPage(node, index, -1)
        let group = firstPage.lastIndex { $0 <= index } ?? 0
        if groups[group].window == nil || nodes.pages(node).allSatisfy({ $0 < 0 }) {
            remove(node, pool: &pool)
        }
    }

    /// Forgets the blocks from the beginning of a text to a place, and all that follow any of them.
    mutating func removePath(to end: Handle, pool: inout BlockPool) {
        guard isLive(end), end.node != Self.root.node else { return }
        var node = end.node
        while nodes[node].parent != Self.root.node { node = nodes[node].parent }
        remove(node, pool: &pool)
    }

    /// Removes a place where a request ended if it has no pages, and those before it that led to nothing else.
    ///
    /// Where all layers see a window, blocks that left it are without pages: they lead to later ones.
    mutating func prune(_ end: Handle) {
        guard isLive(end) else { return }
        removeBare(end.node)
    }

    private mutating func removeBare(_ node: Int32) {
        var node = node
        while node != Self.root.node, nodes.isBare(node) {
            let parent = nodes[node].parent
            nodes.detach(node)
            byKey[Key(parent: parent, hash: nodes[node].hash)] = nil
            nodes.free(node)
            node = parent
        }
    }

    /// Places without pages that lead to none; requests under way may go on from them.
    var bareEnds: [Handle] {
        nodes.indices.map { Int32($0) }
            .filter { nodes[$0].parent >= 0 && nodes.isBare($0) }.map(handle)
    }

    /// Removes a node and all that follow it.
    private mutating func remove(_ node: Int32, pool: inout BlockPool) {
        let parent = nodes[node].parent
        nodes.detach(node)
        defer { removeBare(parent) }
        pending.append(node)
        while let node = pending.popLast() {
            var child = nodes[node].newestChild
            while child >= 0 {
                pending.append(child)
                child = nodes[child].older
            }
            byKey[Key(parent: nodes[node].parent, hash: nodes[node].hash)] = nil
            for page in nodes.pages(node) where page >= 0 { pool.setTag(page, -1) }
            nodes.free(node)
        }
    }

    /// Pages of a node in one group.
    func pages(_ node: Int32, group: Int) -> ArraySlice<Int32> {
        let pages = nodes.pages(node)
        return pages[
            pages.startIndex + firstPage[group]..<pages.startIndex + firstPage[group + 1]]
    }

    private func isLive(_ handle: Handle) -> Bool {
        nodes.indices.contains(Int(handle.node))
            && nodes[handle.node].generation == handle.generation
    }

    private func handle(_ node: Int32) -> Handle {
        Handle(node: node, generation: nodes[node].generation)
    }

    private func child(of node: Int32, _ tokens: ArraySlice<Int32>, _ salt: String) -> Int32? {
        child(of: node, Self.hash(tokens, salt), tokens, salt)
    }

    private func child(
        of node: Int32, _ hash: Int, _ tokens: ArraySlice<Int32>, _ salt: String
    ) -> Int32? {
        guard let child = byKey[Key(parent: node, hash: hash)],
            nodes.isSame(child, tokens), nodes.hasSalt(child, salt)
        else { return nil }
        return child
    }

    /// Seeded anew in each process, so that nobody can choose tokens that collide.
    private static func hash(_ tokens: ArraySlice<Int32>, _ salt: String) -> Int {
        var hasher = Hasher()
        tokens.withUnsafeBytes { hasher.combine(bytes: $0) }
        hasher.combine(salt)
        return hasher.finalize()
    }

    /// Describes the first broken invariant; nil if all hold.
    package func checkInvariants(_ pool: BlockPool) -> String? {
        if let broken = nodes.checkInvariants() { return broken }
        for index in nodes.indices where nodes[Int32(index)].parent >= 0 {
            let pages = Array(nodes.pages(Int32(index)))
            for (place, page) in pages.enumerated() where page >= 0 {
                if pool.tag(page) != tag(Int32(index), place) {
                    return "page \(page) of prefix node \(index) has tag \(pool.tag(page))"
                }
            }
            let isWhole = groups.indices.allSatisfy {
                groups[$0].window != nil
                    || !pages[firstPage[$0]..<firstPage[$0 + 1]].contains(-1)
            }
            if !isWhole { return "prefix node \(index) lacks a page" }
        }
        for page in 0..<Int32(pool.pageCount) where pool.tag(page) >= 0 {
            let (node, place) = pool.tag(page).quotientAndRemainder(
                dividingBy: max(nodes.pageCount, 1))
            if !nodes.indices.contains(node) || nodes[Int32(node)].parent < 0
                || nodes.page(Int32(node), place) != page
            {
                return "page \(page) is tagged for prefix node \(node), which lacks it"
            }
        }
        return nil
    }
}
