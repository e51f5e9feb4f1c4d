// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The tree of a prefix cache in flat arrays: once they have grown, blocks come and go without an allocation.
struct PrefixNodes: Sendable {
    struct Node: Sendable {
        var generation: UInt32 = 0
        /// -1 for the root and for places not in use.
        var parent: Int32 = -1
        var tokenCount: Int32 = 0
        var salt = ""
        /// Of tokens and salt.
        var hash = 0
        /// Children are a list by age.
        var newestChild: Int32 = -1
        var older: Int32 = -1
        var newer: Int32 = -1
    }

    /// Most tokens of a node, and its pages.
    private let span: Int
    let pageCount: Int
    private var nodes = [Node()]
    private var tokenStore: [Int32]
    private var pageStore: [Int32]
    private var unused: [Int32] = []
    /// Nodes of the tree, the root not counted.
    private(set) var count = 0

    init(span: Int, pageCount: Int) {
        self.span = span
        self.pageCount = pageCount
        tokenStore = [Int32](repeating: 0, count: span)
        pageStore = [Int32](repeating: -1, count: pageCount)
    }

    /// Places, used or not.
    var indices: Range<Int> { nodes.indices }
    subscript(node: Int32) -> Node { nodes[Int(node)] }

    func hasSalt(_ node: Int32, _ salt: String) -> Bool { nodes[Int(node)].salt == salt }

    /// How many tokens at the beginning of a node are those of a text.
    func commonTokens(_ node: Int32, _ text: ArraySlice<Int32>) -> Int {
        let (start, limit) = (Int(node) * span, min(Int(nodes[Int(node)].tokenCount), text.count))
        var count = 0
        while count < limit, tokenStore[start + count] == text[text.startIndex + count] {
            count += 1
        }
        return count
    }
    /// Whether a node's tokens are these.
    func isSame(_ node: Int32, _ tokens: ArraySlice<Int32>) -> Bool {
        Int(nodes[Int(node)].tokenCount) == tokens.count
            && commonTokens(node, tokens) == tokens.count
    }
    /// Whether a node has no page and leads to none.
    func isBare(_ node: Int32) -> Bool {
        nodes[Int(node)].newestChild < 0 && pages(node).allSatisfy { $0 < 0 }
    }
    /// Whether all pages of a node are there.
    func isWhole(_ node: Int32) -> Bool { !pages(node).contains(-1) }

    /// Pages of a node, `[group][page of the block]`, -1 where one is gone.
    func pages(_ node: Int32) -> ArraySlice<Int32> {
        pageStore[Int(node) * pageCount..<(Int(node) + 1) * pageCount]
    }
    func page(_ node: Int32, _ index: Int) -> Int32 { pageStore[Int(node) * pageCount + index] }
    mutating func setPage(_ node: Int32, _ index: Int, _ page: Int32) {
        pageStore[Int(node) * pageCount + index] = page
    }

    /// Adds the newest child of a node, without pages.
    mutating func add(
        to parent: Int32, tokens: ArraySlice<Int32>, salt: String, hash: Int
    ) -> Int32 {
        let node = unused.popLast() ?? Int32(nodes.count)
        if Int(node) == nodes.count {
            nodes.append(Node())
            tokenStore.append(contentsOf: repeatElement(0, count: span))
            pageStore.append(contentsOf: repeatElement(-1, count: pageCount))
        }
        for (place, token) in zip(Int(node) * span..<(Int(node) + 1) * span, tokens) {
            tokenStore[place] = token
        }
        let sibling = nodes[Int(parent)].newestChild
        nodes[Int(node)].parent = parent
        nodes[Int(node)].tokenCount = Int32(min(tokens.count, span))
        nodes[Int(node)].salt = salt
        nodes[Int(node)].hash = hash
        nodes[Int(node)].older = sibling
        if sibling >= 0 { nodes[Int(sibling)].newer = node }
        nodes[Int(parent)].newestChild = node
        count += 1
        return node
    }

    /// Takes a node out of its parent's list.
    mutating func detach(_ node: Int32) {
        let (parent, older, newer) = (
            nodes[Int(node)].parent, nodes[Int(node)].older, nodes[Int(node)].newer
        )
        guard parent >= 0 else { return }
        if older >= 0 { nodes[Int(older)].newer = newer }
        if newer >= 0 {
            nodes[Int(newer)].older = older
        } else {
            nodes[Int(parent)].newestChild = older
        }
    }

    /// Gives up a detached node's place; its children must be looked at before.
    mutating func free(_ node: Int32) {
        nodes[Int(node)] = Node(generation: nodes[Int(node)].generation &+ 1)
        for index in 0..<pageCount { setPage(node, index, -1) }
        unused.append(node)
        count -= 1
    }

    /// Describes the first broken link; nil if all hold.
    func checkInvariants() -> String? {
        var found = 0
        for index in nodes.indices where index == 0 || nodes[index].parent >= 0 {
            var (child, newer) = (nodes[index].newestChild, Int32(-1))
            while child >= 0 {
                let node = nodes[Int(child)]
                if node.parent != Int32(index) || node.newer != newer {
                    return "prefix node \(child) is not rightly its parent's child"
                }
                found += 1
                (child, newer) = (node.older, child)
            }
        }
        let used = nodes.count { $0.parent >= 0 }
        return found == count && used == count
            ? nil : "\(found) prefix nodes linked, \(used) used, \(count) counted"
    }
}
