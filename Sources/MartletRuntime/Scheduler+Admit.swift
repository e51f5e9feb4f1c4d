// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Lets waiting requests in by their order: one that does not fit holds up those behind it.
    ///
    /// One whose prompt begins like that of a request under way waits until that part is there.
    mutating func admit() {
        if policy.isStatic, !active.isEmpty { return }
        setPausedAside()
        var place = waitingHead
        while place < waiting.count {
            let slot = waiting[place]
            if states[slot].isPaused {
                place += 1
                continue
            }
            guard hasRoom(slot) else { break }
            if states[slot].isSwapped {
                guard swapIn(slot) else { break }
            } else {
                if awaitsLeader(slot) {
                    place += 1
                    continue
                }
                // The one look at the known prefixes.
                let match =
                    states[slot].sharesPrefix && states[slot].facts.takesKnownPrefix
                    ? prefixes.match(states[slot].tokens, salt: states[slot].request.cacheSalt)
                    : PrefixCache.Match()
                if findLeader(slot, known: match.positions) {
                    place += 1
                    continue
                }
                start(slot, match)
            }
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

    /// Whether rows, sampling state and pages are there for a request.
    mutating func hasRoom(_ slot: Int) -> Bool {
        let facts = states[slot].facts
        guard active.count + awaitedRows + facts.rowCount <= rowLimit,
            !facts.needsState || !freeStateSlots.isEmpty
        else { return false }
        // Under `maxUtilization` only what can never be paused has pages set aside.
        if policy != .maxUtilization || facts.rowCount > 1 {
            return states[slot].reservedPages <= pool.pageCount - reservedPages
        }
        if active.isEmpty, draining.isEmpty, deferred.isEmpty { return true }
        // A block more than the tokens that are known, so that it does not stop at once.
        let held = states[slot].hostTables.reduce(0) { $0 + $1.pages.count + 1 }
        let needed =
            states[slot].isSwapped
            ? held
            : budget.pageCount(
                positions: states[slot].tokens.count + 1, sources: states[slot].source.wanted)
        let wanted = needed + promisedPages
        return wanted <= pool.freeCount || settle() && wanted <= pool.freeCount
    }

    /// Pages that running requests have yet to take for tokens that are known, and one token more.
    var promisedPages: Int {
        active.reduce(0) { sum, slot in
            states[slot].facts.rowCount == 1 ? sum + lackingPages(slot) : sum
        }
    }

    /// Pages that a request has yet to take for tokens that are known, and one token more.
    func lackingPages(_ slot: Int) -> Int {
        let needed = budget.pageCount(
            positions: states[slot].tokens.count + 1, sources: states[slot].source.wanted)
        return max(needed - states[slot].heldPages, 0)
    }

    /// Starts a request, from as far on as its beginning is known.
    private mutating func start(_ slot: Int, _ match: PrefixCache.Match) {
        var match = match
        reserve(slot, &match)
        reuse(slot, match)
        activate(slot)
    }

    /// Puts a request whose pages are there among the running.
    mutating func activate(_ slot: Int) {
        if states[slot].facts.needsState, let stateSlot = freeStateSlots.popLast() {
            states[slot].stateSlot = stateSlot
        }
        // So that no token has to make room.
        let room = states[slot].promptCount + min(states[slot].maxTokens, 4096)
        states[slot].tokens.reserveCapacity(room)
        for (index, group) in budget.groups.enumerated() {
            let tokens = group.window.map { min(room, $0 + limits.maxTokens) } ?? room
            tables[slot, index].pages.reserveCapacity(tokens / group.blockSize + 2)
        }
        states[slot].nextBoundary = 0
        states[slot].knownCount = states[slot].tokens.count
        states[slot].mustReset = true
        states[slot].phase = .active
        states[slot].hasStarted = true
        active.append(slot)
        states[slot].awaitedRows = states[slot].facts.rowCount - 1
        awaitedRows += states[slot].awaitedRows
    }

    /// Sets pages aside: all that the request may ever need.
    ///
    /// Sources of copies are held beside their copies: without room for them there is no copy.
    private mutating func reserve(_ slot: Int, _ match: inout PrefixCache.Match) {
        let sources = budget.groups.count
        guard policy != .maxUtilization || states[slot].facts.rowCount > 1 else {
            let needed = budget.pageCount(
                positions: states[slot].tokens.count + 1, sources: states[slot].source.wanted)
            if needed + sources > pool.freeCount { match.partial = nil }
            return
        }
        if match.partial != nil {
            if states[slot].reservedPages + sources <= pool.pageCount - reservedPages {
                states[slot].reservedPages += sources
            } else {
                match.partial = nil
            }
        }
        reservedPages += states[slot].reservedPages
        states[slot].admitted = true
    }
}
