// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Lets waiting requests in by arrival: one that does not fit holds up those behind it.
    ///
    /// One whose prompt begins like that of a request under way waits until that part is there.
    mutating func admit() {
        if policy == .static, !active.isEmpty { return }
        var place = waitingHead
        while place < waiting.count, active.count < limits.maxRequests {
            let slot = waiting[place]
            if isLed(slot) {
                place += 1
                continue
            }
            guard start(slot) else { break }
            if place == waitingHead {
                waitingHead += 1
            } else {
                waiting.remove(at: place)
            }
            place = max(place, waitingHead)
        }
        if waitingHead > 64, waitingHead * 2 > waiting.count {
            waiting.removeFirst(waitingHead)
            waitingHead = 0
        }
    }

    /// Starts a request, from as far on as its beginning is known; false if it does not fit.
    private mutating func start(_ slot: Int) -> Bool {
        let state = states[slot]
        let needsSlot = state.request.settings.needsHistory
        if needsSlot, freeStateSlots.isEmpty { return false }
        var match = PrefixCache.Match()
        if state.sharesPrefix {
            match = prefixes.match(state.tokens, salt: state.request.cacheSalt)
        }
        guard reserve(slot, &match) else { return false }
        if needsSlot, let stateSlot = freeStateSlots.popLast() {
            states[slot].stateSlot = stateSlot
        }
        reuse(slot, match)
        states[slot].knownCount = state.tokens.count
        states[slot].mustReset = true
        states[slot].phase = .active
        active.append(slot)
        return true
    }

    /// Sets pages aside: all that the request may ever need, or those that it needs to begin with.
    private mutating func reserve(_ slot: Int, _ match: inout PrefixCache.Match) -> Bool {
        if policy == .maxUtilization {
            // A block more than the tokens that are known, so that it does not stop at once.
            let needed = budget.pageCount(positions: states[slot].tokens.count + 1)
            if needed + budget.groups.count > pool.freeCount { match.partial = nil }
            return needed <= pool.freeCount
                || (active.isEmpty && draining.isEmpty && deferred.isEmpty)
        }
        let free = pool.pageCount - reservedPages
        guard states[slot].reservedPages <= free else { return false }
        // Sources of copies are held beside their copies.
        if match.partial != nil {
            if states[slot].reservedPages + budget.groups.count <= free {
                states[slot].reservedPages += budget.groups.count
            } else {
                match.partial = nil
            }
        }
        reservedPages += states[slot].reservedPages
        states[slot].admitted = true
        return true
    }
}
