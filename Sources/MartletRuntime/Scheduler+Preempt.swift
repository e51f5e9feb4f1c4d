// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension Scheduler {
    /// A page for a request when none is free: the newest gives up its own, and is computed again
    /// later.
    ///
    /// Nil while steps in flight name the pages, and under policies that set pages aside, which never
    /// come here.
    mutating func pageOfAnother(_ slot: Int) -> Int32? {
        guard policy == .maxUtilization, !active.contains(where: { states[$0].isPreempted }),
            let victim = active.last, victim != slot || active.count > 1
        else { return nil }
        preemptionCount += 1
        states[victim].isPreempted = true
        guard states[victim].inFlight == 0 else { return nil }
        suspend(victim)
        return victim == slot ? nil : allocatePage()
    }

    /// Takes a preempted request's pages and puts it at the head of those that wait.
    mutating func suspend(_ slot: Int) {
        share(slot, atEnd: true)
        releasePages(slot)
        if let index = active.firstIndex(of: slot) { active.remove(at: index) }
        states[slot].isPreempted = false
        states[slot].sharesPrefix = sharesPrefix(states[slot].request)
        states[slot].computed = 0
        states[slot].scheduled = 0
        states[slot].phase = .waiting
        if waitingHead > 0 {
            waitingHead -= 1
            waiting[waitingHead] = slot
        } else {
            waiting.insert(slot, at: 0)
        }
    }

    /// Releases all pages and the sampling state of a request that no step names.
    mutating func releasePages(_ slot: Int) {
        for index in states[slot].tables.indices {
            // From the end on, so that beginnings stay known for longest.
            for page in states[slot].tables[index].pages.reversed() { pool.release(page) }
            states[slot].heldPages -= states[slot].tables[index].pages.count
            states[slot].tables[index] = BlockTable()
        }
        for copy in states[slot].copies { pool.release(copy.source) }
        states[slot].heldPages -= states[slot].copies.count
        states[slot].copies.removeAll()
        if states[slot].stateSlot >= 0 { freeStateSlots.append(states[slot].stateSlot) }
        states[slot].stateSlot = -1
    }
}
