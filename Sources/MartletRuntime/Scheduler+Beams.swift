// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Makes the other beams of a search whose prompt is computed: copies of the first.
    ///
    /// Each goes on with the tokens that the next `reorderBeams` gives it. Blocks are shared.
    package mutating func forkBeams(_ id: RequestID) {
        guard let first = slotsByID[id], states[first].phase == .active else { return }
        let facts = states[first].facts
        // What is known of the prompt stays known; answers of beams are not shared.
        states[first].sharesPrefix = false
        prefixes.prune(states[first].prefixEnd)
        states[first].prefixEnd = PrefixCache.root
        if states[first].admitted {
            states[first].reservedPages -= (facts.rowCount - 1) * facts.pagesPerRow
        }
        awaitedRows -= states[first].awaitedRows
        states[first].awaitedRows = 0
        let own = tables[first]
        for beam in 1..<max(facts.rowCount, 1) {
            var state = RequestState(
                id: RequestID(id.rawValue, beam: Int32(clamping: beam)), facts: facts)
            state.reservedPages = facts.pagesPerRow
            state.admitted = states[first].admitted
            state.phase = .active
            state.isPaused = states[first].isPaused
            state.mustReset = false
            copyBeam(states[first], to: &state)
            let slot = place(state)
            tables[slot] = own
            retainTables(slot)
            active.append(slot)
        }
    }

    /// Lets beam `i` go on where beam `parents[i]` was, with one more token.
    ///
    /// No step in flight may name a beam of the search. Nothing is allocated here: beams that share
    /// their last, partly filled block get one of their own when they are scheduled.
    package mutating func reorderBeams(_ id: RequestID, parents: [Int], tokens: [Int32]) {
        let slots = parents.indices.compactMap {
            slotsByID[RequestID(id.rawValue, beam: Int32(clamping: $0))]
        }
        guard slots.count == parents.count, tokens.count == parents.count,
            parents.allSatisfy(slots.indices.contains)
        else { return }
        let old = slots.map { (state: states[$0], tables: tables[$0]) }
        for (beam, slot) in slots.enumerated() where parents[beam] != beam {
            copyBeam(old[parents[beam]].state, to: &states[slot])
            tables[slot] = old[parents[beam]].tables
            retainTables(slot)
        }
        for (beam, slot) in slots.enumerated() {
            if parents[beam] != beam {
                for table in old[beam].tables { for page in table.pages { pool.release(page) } }
            }
            // Of those with one parent the first keeps the block.
            states[slot].sharesLastBlock = parents.firstIndex(of: parents[beam]) != beam
            states[slot].nextBoundary = 0
            states[slot].tokens.append(tokens[beam])
        }
    }

    private func copyBeam(_ source: RequestState, to target: inout RequestState) {
        target.tokens = source.tokens
        target.source = source.source
        target.computed = source.computed
        target.scheduled = source.scheduled
        target.sampledCount = source.sampledCount
        target.knownCount = source.knownCount
        target.nextBoundary = 0
    }

    private mutating func retainTables(_ slot: Int) {
        states[slot].heldPages = 0
        for table in tables[slot] {
            for page in table.pages { pool.retain(page) }
            states[slot].heldPages += table.pages.count
        }
    }

    /// Gives a beam a last block of its own, a copy of the one it shares; false without a page.
    mutating func ownLastBlock(_ slot: Int, at position: Int) -> Bool {
        for (index, group) in budget.groups.enumerated()
        where position % group.blockSize != 0 && !streams.holdsSource[index] {
            if states[slot].copies.contains(where: { $0.group == index }) { continue }
            guard let page = allocatePage() ?? pageOfAnother(slot) else { return false }
            let block = position / group.blockSize - tables[slot, index].firstBlock
            let shared = tables[slot, index].pages[block]
            tables[slot, index].pages[block] = page
            states[slot].copies.append((index, shared, page))
            states[slot].heldPages += 1
        }
        states[slot].sharesLastBlock = false
        return true
    }
}
