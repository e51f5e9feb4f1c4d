// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Whether the request that this one was found to wait for still computes what both have.
    mutating func awaitsLeader(_ slot: Int) -> Bool {
        guard let leader = states[slot].leader else { return false }
        if isComputing(leader.slot, leader.id, leader.positions) { return true }
        states[slot].leader = nil
        return false
    }

    /// Looks for a request under way that computes a longer beginning of this one's prompt than is
    /// known now.
    ///
    /// A batch that starts as a whole waits for no one.
    mutating func findLeader(_ slot: Int, known: Int) -> Bool {
        guard states[slot].sharesPrefix, states[slot].facts.takesKnownPrefix, !policy.isStatic
        else { return false }
        for other in active
        where states[other].sharesPrefix && !states[other].isPaused
            && states[other].computed < states[other].promptCount
        {
            let common = commonPositions(slot, other)
            guard common > max(states[other].computed, known) else { continue }
            states[slot].leader = (other, states[other].id, common)
            return true
        }
        return false
    }

    private func isComputing(_ slot: Int, _ id: RequestID, _ positions: Int) -> Bool {
        states[slot].id == id && states[slot].phase == .active && !states[slot].isPreempted
            && !states[slot].isPaused && states[slot].computed < positions
    }

    /// Positions of whole blocks that two prompts have in common, the last token of each excepted.
    private func commonPositions(_ a: Int, _ b: Int) -> Int {
        guard states[a].request.cacheSalt == states[b].request.cacheSalt else { return 0 }
        let limit = min(states[a].tokens.count, states[b].promptCount) - 1
        var count = 0
        while count < limit, states[a].tokens[count] == states[b].tokens[count] { count += 1 }
        return count / prefixes.span * prefixes.span
    }

    /// Gives a request the pages of the known beginning of its tokens.
    mutating func reuse(_ slot: Int, _ match: PrefixCache.Match) {
        states[slot].prefixEnd = match.end
        states[slot].prefixPositions = match.positions
        states[slot].computed = match.positions
        for (index, group) in budget.groups.enumerated() {
            let first = group.window.map { max(match.positions - $0 + 1, 0) / group.blockSize } ?? 0
            tables[slot, index].firstBlock = first
            var block = 0
            for node in match.path {
                for page in prefixes.pages(node, group: index) {
                    if block >= first {
                        pool.retain(page)
                        tables[slot, index].pages.append(page)
                        states[slot].heldPages += 1
                    }
                    block += 1
                }
            }
        }
        states[slot].scheduled = match.positions
        if let partial = match.partial { copyPartial(slot, partial.node, count: partial.count) }
        reusedTokenCount += states[slot].scheduled
    }

    /// Begins with a copy of a block that holds some of the tokens and others after them.
    private mutating func copyPartial(_ slot: Int, _ node: Int32, count: Int) {
        let sources = budget.groups.indices.compactMap { prefixes.pages(node, group: $0).first }
        guard sources.count <= pool.freeCount else { return }
        for source in sources { pool.retain(source) }
        guard sources.count <= pool.freeCount else {
            for source in sources { pool.release(source) }
            return
        }
        for (group, source) in sources.enumerated() {
            guard let page = allocatePage() else { return }
            tables[slot, group].pages.append(page)
            states[slot].copies.append((group, source, page))
            states[slot].heldPages += 2
        }
        // Not yet computed: the copy is done with the first step.
        states[slot].scheduled += count
    }

    /// Puts the request's copies before its next step; their sources go when that has completed.
    mutating func beginCopies(_ slot: Int, step: Int) {
        guard !states[slot].copies.isEmpty else { return }
        for copy in states[slot].copies {
            pendingOperations.append(
                BlockOperation(
                    kind: .copy, group: copy.group, source: copy.source,
                    destination: copy.destination))
            deferred.append((step, copy.source, slot))
        }
        states[slot].copies.removeAll(keepingCapacity: true)
    }

    /// Makes blocks that are computed known to other requests; at the end also the last, unfinished one.
    mutating func share(_ slot: Int, atEnd: Bool = false) {
        while states[slot].sharesPrefix, !states[slot].isSwapped {
            let start = states[slot].prefixPositions
            let count = min(prefixes.span, states[slot].computed - start)
            guard count == prefixes.span || (atEnd && count > 0 && pagesAlike) else { return }
            pagesToShare.removeAll(keepingCapacity: true)
            for (index, group) in budget.groups.enumerated() {
                let first = start / group.blockSize - tables[slot, index].firstBlock
                for block in first..<first + prefixes.span / group.blockSize {
                    let isThere = tables[slot, index].pages.indices.contains(block)
                    pagesToShare.append(
                        isThere ? tables[slot, index].pages[block] : -1)
                }
            }
            let end = prefixes.insert(
                after: states[slot].prefixEnd, tokens: states[slot].tokens[start..<start + count],
                salt: states[slot].request.cacheSalt, pages: pagesToShare, pool: &pool)
            guard let end, count == prefixes.span else {
                states[slot].sharesPrefix = false
                return
            }
            states[slot].prefixEnd = end
            states[slot].prefixPositions += count
        }
    }

    /// Makes unknown what the request computed and what it went on from: either may be no numbers.
    mutating func unshare(_ slot: Int) {
        states[slot].sharesPrefix = false
        prefixes.removePath(to: states[slot].prefixEnd, pool: &pool)
    }

    /// Ends a request whose numbers are none; false if it has ended.
    @discardableResult package mutating func fail(_ id: RequestID) -> Bool {
        guard let slot = slotsByID[id] else { return false }
        unshare(slot)
        return finish(id)
    }

    /// Whether all groups have blocks of one size.
    private var pagesAlike: Bool { budget.groups.allSatisfy { $0.blockSize == prefixes.span } }
}
