// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension Scheduler {
    /// A page for a request when none is free: another gives up its own, and goes on later.
    ///
    /// Nil while steps in flight name the pages, and under policies that set pages aside, which never
    /// come here.
    mutating func pageOfAnother(_ slot: Int) -> Int32? {
        guard policy == .maxUtilization else { return nil }
        guard !active.contains(where: { states[$0].isPreempted }) else {
            isShortOfPages = true
            return nil
        }
        guard let victim = victim(), victim != slot || active.count > 1 else { return nil }
        states[victim].isPreempted = true
        guard states[victim].inFlight == 0 else {
            isShortOfPages = victim != slot
            return nil
        }
        suspend(victim)
        return victim == slot ? nil : allocatePage()
    }

    /// Takes the pages of the request that was to give them up once no step names them, unless there are enough by now.
    mutating func suspendPreempted() {
        guard policy == .maxUtilization,
            let slot = active.first(where: { states[$0].isPreempted && states[$0].inFlight == 0 })
        else { return }
        settle()
        if promisedPages + beamPages <= pool.freeCount {
            states[slot].isPreempted = false
        } else {
            suspend(slot)
        }
    }

    /// Pages that beams may take for tokens that are known, and one token more; each may copy its last blocks.
    private var beamPages: Int {
        active.reduce(0) { sum, slot in
            let isBeam = states[slot].facts.rowCount > 1
            return isBeam ? sum + lackingPages(slot) + budget.groups.count : sum
        }
    }

    /// Who gives up its pages: one whose reader is behind, else of the lowest priority the newest.
    ///
    /// Searches with beams never do: their pages are set aside.
    private func victim() -> Int? {
        var best: Int?
        for slot in active.reversed() where states[slot].facts.rowCount == 1 {
            guard let other = best else {
                best = slot
                continue
            }
            if states[slot].isPaused == states[other].isPaused
                ? states[slot].facts.priority < states[other].facts.priority
                : states[slot].isPaused
            {
                best = slot
            }
        }
        return best
    }

    /// Lets requests whose readers are behind give rows and pages to the next that waits.
    ///
    /// Not searches with beams, which nobody reads before their end, nor batches that run until all end.
    mutating func setPausedAside() {
        guard mayHavePaused, !policy.isStatic, waitingHead < waiting.count else { return }
        var paused = active.filter { states[$0].isPaused && states[$0].facts.rowCount == 1 }
        mayHavePaused = !paused.isEmpty
        while let next = waiting[waitingHead...].first(where: { !states[$0].isPaused }),
            !hasRoom(next),
            let place = paused.lastIndex(where: {
                states[$0].inFlight == 0 && !states[$0].isPreempted
            })
        {
            asideCount += 1
            suspend(paused.remove(at: place))
        }
    }

    /// Takes a preempted request's pages and puts it at the head of those that wait.
    mutating func suspend(_ slot: Int) {
        if states[slot].isPreempted { preemptionCount += 1 }
        share(slot, atEnd: true)
        if states[slot].admitted {
            reservedPages -= states[slot].reservedPages
            states[slot].reservedPages = states[slot].facts.reservedPages
            states[slot].admitted = false
        }
        // Where pages are set aside, it has to wait for as many again.
        if policy != .maxUtilization || !prefersSwap(slot) || !swapOut(slot) {
            prefixes.prune(states[slot].prefixEnd)
            releasePages(slot)
            states[slot].computed = 0
            states[slot].source.reset()
            states[slot].prefixEnd = PrefixCache.root
            states[slot].prefixPositions = 0
        }
        if let index = active.firstIndex(of: slot) { active.remove(at: index) }
        states[slot].isPreempted = false
        states[slot].sharesPrefix = reusesPrefixes
        states[slot].scheduled = states[slot].computed
        states[slot].phase = .waiting
        enqueue(slot, afterEqual: false)
    }

    /// Releases all pages and the sampling state of a request that no step names.
    mutating func releasePages(_ slot: Int) {
        for index in budget.groups.indices {
            // From the end on, so that beginnings stay known for longest.
            for page in tables[slot, index].pages.reversed() { pool.release(page) }
            states[slot].heldPages -= tables[slot, index].pages.count
            tables[slot, index] = BlockTable()
        }
        for copy in states[slot].copies { pool.release(copy.source) }
        states[slot].heldPages -= states[slot].copies.count
        states[slot].copies.removeAll()
        for table in states[slot].hostTables {
            for page in table.pages { hostPool.release(page) }
        }
        states[slot].hostTables = []
        releaseStateSlot(slot)
    }

    mutating func releaseStateSlot(_ slot: Int) {
        if states[slot].stateSlot >= 0 { freeStateSlots.append(states[slot].stateSlot) }
        states[slot].stateSlot = -1
    }
}
