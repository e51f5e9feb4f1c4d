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

    struct Node: Sendable {
        var generation: UInt32 = 0
        var parent: Int32 = -1
        var tokens: [Int32] = []
        var salt = ""
        var key = Key(parent: -1, hash: 0)
        /// `[group][page of the block]`, -1 where the page is gone.
        var pages: [Int32] = []
        var children: [Int32] = []
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
    private(set) var nodes: [Node] = []
    private var unused: [Int32] = []
    private var byKey: [Key: Int32] = [:]
    /// Blocks known.
    package private(set) var nodeCount = 0

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
        nodes = [Node()]
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
                if nodes[Int(path[block / perNode])].pages[page] < 0 { return false }
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
        for child in nodes[Int(node)].children.suffix(Self.partialLimit).reversed() {
            let known = nodes[Int(child)]
            guard known.salt == salt, !known.pages.contains(-1) else { continue }
            var count = 0
            while count < known.tokens.count, count < tokens.count,
                known.tokens[count] == tokens[tokens.startIndex + count]
            {
                count += 1
            }
            if count > best?.count ?? 0 { best = (child, count) }
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
        guard isLive(parent), !tokens.isEmpty, pages.count == firstPage[groups.count] else {
            return nil
        }
        if let known = child(of: parent.node, tokens, salt) {
            for index in pages.indices
            where nodes[Int(known)].pages[index] < 0 && pool.tag(pages[index]) < 0 {
                setPage(known, index, pages[index], &pool)
            }
            return handle(known)
        }
        // A page that another node names stays that node's.
        let pages = pages.map { pool.tag($0) < 0 ? $0 : -1 }
        guard !groups.indices.contains(where: { isMissing($0, pages) }) else { return nil }
        let key = Key(parent: parent.node, hash: Self.hash(tokens, salt))
        // Two blocks of one hash: the first keeps it.
        guard byKey[key] == nil else { return nil }
        let node = unused.popLast() ?? Int32(nodes.count)
        if Int(node) == nodes.count { nodes.append(Node()) }
        nodes[Int(node)].parent = parent.node
        nodes[Int(node)].tokens = Array(tokens)
        nodes[Int(node)].salt = salt
        nodes[Int(node)].key = key
        nodes[Int(node)].pages = [Int32](repeating: -1, count: pages.count)
        byKey[key] = node
        nodes[Int(parent.node)].children.append(node)
        nodeCount += 1
        for index in pages.indices { setPage(node, index, pages[index], &pool) }
        return handle(node)
    }

    private func isMissing(_ group: Int, _ pages: [Int32]) -> Bool {
        groups[group].window == nil && pages[firstPage[group]..<firstPage[group + 1]].contains(-1)
    }

    private mutating func setPage(
        _ node: Int32, _ index: Int, _ page: Int32, _ pool: inout BlockPool
    ) {
        nodes[Int(node)].pages[index] = page
        if page >= 0 { pool.setTag(page, tag(node, index)) }
    }

    private func tag(_ node: Int32, _ index: Int) -> Int {
        Int(node) * firstPage[groups.count] + index
    }

    /// Takes note that a page was taken for something else.
    package mutating func forget(tag: Int, pool: inout BlockPool) {
        guard tag >= 0, firstPage[groups.count] > 0 else { return }
        let (node, index) = tag.quotientAndRemainder(dividingBy: firstPage[groups.count])
        nodes[node].pages[index] = -1
        let group = firstPage.lastIndex { $0 <= index } ?? 0
        if groups[group].window == nil || !nodes[node].pages.contains(where: { $0 >= 0 }) {
            remove(Int32(node), pool: &pool)
        }
    }

    /// Forgets the blocks from the beginning of a text to a place, and all that follow any of them.
    mutating func removePath(to end: Handle, pool: inout BlockPool) {
        guard isLive(end), end.node != Self.root.node else { return }
        var node = end.node
        while nodes[Int(node)].parent != Self.root.node { node = nodes[Int(node)].parent }
        remove(node, pool: &pool)
    }

    /// Removes a node and all that follow it.
    private mutating func remove(_ node: Int32, pool: inout BlockPool) {
        let parent = nodes[Int(node)].parent
        if parent >= 0, let index = nodes[Int(parent)].children.firstIndex(of: node) {
            nodes[Int(parent)].children.remove(at: index)
        }
        var pending = [node]
        while let node = pending.popLast() {
            pending += nodes[Int(node)].children
            byKey[nodes[Int(node)].key] = nil
            for page in nodes[Int(node)].pages where page >= 0 { pool.setTag(page, -1) }
            nodes[Int(node)] = Node(generation: nodes[Int(node)].generation &+ 1)
            unused.append(node)
            nodeCount -= 1
        }
    }

    /// Pages of a node in one group.
    func pages(_ node: Int32, group: Int) -> ArraySlice<Int32> {
        nodes[Int(node)].pages[firstPage[group]..<firstPage[group + 1]]
    }

    private func isLive(_ handle: Handle) -> Bool {
        nodes.indices.contains(Int(handle.node))
            && nodes[Int(handle.node)].generation == handle.generation
    }

    private func handle(_ node: Int32) -> Handle {
        Handle(node: node, generation: nodes[Int(node)].generation)
    }

    private func child(of node: Int32, _ tokens: ArraySlice<Int32>, _ salt: String) -> Int32? {
        guard let child = byKey[Key(parent: node, hash: Self.hash(tokens, salt))],
            nodes[Int(child)].tokens.elementsEqual(tokens), nodes[Int(child)].salt == salt
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
        var count = 0
        for (index, node) in nodes.enumerated() where node.parent >= 0 {
            count += 1
            if !nodes[Int(node.parent)].children.contains(Int32(index)) {
                return "prefix node \(index) is not its parent's child"
            }
            for (place, page) in node.pages.enumerated() where page >= 0 {
                if pool.tag(page) != tag(Int32(index), place) {
                    return "page \(page) of prefix node \(index) has tag \(pool.tag(page))"
                }
            }
            if groups.indices.contains(where: { isMissing($0, node.pages) }) {
                return "prefix node \(index) lacks a page"
            }
        }
        if count != nodeCount { return "\(count) prefix nodes, \(nodeCount) counted" }
        for page in 0..<Int32(pool.pageCount) where pool.tag(page) >= 0 {
            let (node, place) = pool.tag(page).quotientAndRemainder(
                dividingBy: max(firstPage[groups.count], 1))
            if !nodes.indices.contains(node) || nodes[node].parent < 0
                || nodes[node].pages[place] != page
            {
                return "page \(page) is tagged for prefix node \(node), which lacks it"
            }
        }
        return nil
    }
}
