// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Describes the first broken invariant; nil if all hold.
    package func checkInvariants() -> String? {
        let pools = pool.checkInvariants() ?? hostPool.checkInvariants()
        if let broken = pools ?? prefixes.checkInvariants(pool) { return broken }
        var references = [Int](repeating: 0, count: pool.pageCount)
        var hostReferences = [Int](repeating: 0, count: hostPool.pageCount)
        var reserved = 0
        for (slot, state) in states.enumerated() where state.phase != .unused {
            if state.phase != .ended, slotsByID[state.id] != slot {
                return "\(state.id) is not listed at its slot"
            }
            var held = 0
            for table in tables[slot] {
                held += table.pages.count
                for page in table.pages { references[Int(page)] += 1 }
            }
            for table in state.hostTables {
                for page in table.pages { hostReferences[Int(page)] += 1 }
            }
            for copy in state.copies { references[Int(copy.source)] += 1 }
            held += state.copies.count + deferred.filter { $0.slot == slot }.count
            if held != state.heldPages {
                return "\(state.id) holds \(held), not \(state.heldPages)"
            }
            if state.admitted, held > state.reservedPages {
                return "\(state.id) holds \(held) pages of \(state.reservedPages) reserved"
            }
            if state.admitted { reserved += state.reservedPages }
            if state.phase != .ended, let broken = check(state, slot) { return broken }
        }
        for end in prefixes.bareEnds where !states.contains(where: { $0.prefixEnd == end }) {
            return "prefix node \(end.node) leads to no page"
        }
        for entry in deferred { references[Int(entry.page)] += 1 }
        for page in 0..<pool.pageCount where pool.referenceCount(Int32(page)) != references[page] {
            return "page \(page) has \(pool.referenceCount(Int32(page))) references, "
                + "but \(references[page]) users"
        }
        for page in 0..<hostPool.pageCount
        where hostPool.referenceCount(Int32(page)) != hostReferences[page] {
            return "host page \(page) has \(hostPool.referenceCount(Int32(page))) references, "
                + "but \(hostReferences[page]) users"
        }
        if reserved != reservedPages { return "\(reserved) pages reserved, not \(reservedPages)" }
        if reserved > pool.pageCount { return "\(reserved) of \(pool.pageCount) pages reserved" }
        let slots = states.filter { $0.stateSlot >= 0 }.map(\.stateSlot) + freeStateSlots
        if Set(slots).count != slots.count || slots.count != stateSlotCount {
            return "state slots \(slots) of \(stateSlotCount)"
        }
        let live = waiting.count - waitingHead + active.count + draining.count
        if live != slotsByID.count {
            return "\(live) requests in queues, \(slotsByID.count) listed"
        }
        let awaited = active.reduce(0) { $0 + states[$1].awaitedRows }
        if awaited != awaitedRows { return "\(awaited) rows awaited, not \(awaitedRows)" }
        let padding = active.count { states[$0].isPadding }
        if padding != paddingCount { return "\(padding) rows of padding, not \(paddingCount)" }
        return active.count + awaited > rowLimit ? "\(active.count) requests run" : nil
    }

    private func check(_ state: RequestState, _ slot: Int) -> String? {
        if state.computed > state.scheduled || state.scheduled > state.wanted {
            return "\(state.id): computed \(state.computed), scheduled \(state.scheduled), "
                + "wanted \(state.wanted)"
        }
        let source = state.source
        if source.computed > source.scheduled || source.scheduled > source.wanted
            || state.scheduled > 0 && !source.isComputed
        {
            return "\(state.id): \(source.computed) of \(source.wanted) source tokens computed"
        }
        if state.isPadding { return nil }
        if state.sampledCount > state.facts.maxTokens { return "\(state.id) draws too many tokens" }
        if state.inFlight > nextNumber - lastCompleted - 1 {
            return "\(state.id) is in flight twice"
        }
        if state.inFlight == 0, state.phase == .draining { return "\(state.id) ended but is kept" }
        // Beams get their tokens when all have been compared.
        let lacking = state.promptCount + state.sampledCount - state.tokens.count
        if state.inFlight == 0, lacking != 0, state.facts.rowCount == 1 || lacking != 1 {
            return "\(state.id) lacks a token"
        }
        // What `addsToken` goes by.
        if state.isPlain, state.phase == .active, state.scheduled >= state.knownCount,
            state.sampledCount < state.maxTokens,
            state.scheduled != state.promptCount + state.sampledCount - 1
        {
            return "\(state.id) is scheduled to \(state.scheduled), not to its newest token"
        }
        if state.isSwapped, state.phase != .waiting { return "\(state.id) runs from the host" }
        let tables = state.isSwapped ? state.hostTables : tables[slot]
        for (index, (group, table)) in zip(budget.groups, tables).enumerated()
        where state.scheduled > 0 {
            if streams.holdsSource[index] {
                let isNeeded = streams.generating.uses.contains { $0.group == index }
                let count = table.pages.count * group.blockSize
                if isNeeded ? count < state.source.wanted : count > 0 {
                    return "\(state.id) has \(count) positions for its source"
                }
                continue
            }
            let end = (table.firstBlock + table.pages.count) * group.blockSize
            if end < state.scheduled { return "\(state.id) has no page for a scheduled position" }
            if group.window == nil, table.firstBlock != 0 { return "\(state.id) lost its start" }
        }
        return nil
    }
}
