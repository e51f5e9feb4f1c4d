// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Whether a paused request's blocks go to the host rather than being computed again.
    func prefersSwap(_ slot: Int) -> Bool {
        // Copies that have not begun have nothing to save yet.
        guard hostPool.pageCount > 0, states[slot].copies.isEmpty, states[slot].computed > 0 else {
            return false
        }
        switch options.preemption {
        case .recompute: return false
        case .swap: return true
        case .automatic:
            // What other requests hold as well is found again among the known prefixes.
            var pages = 0, own = 0
            for table in tables[slot] {
                pages += table.pages.count
                for page in table.pages where pool.referenceCount(page) == 1 { own += 1 }
            }
            let tokens = pages > 0 ? states[slot].computed * own / pages : 0
            return preemptionCost.prefersSwap(pages: pages, tokens: tokens)
        }
    }

    /// Copies a request's blocks to the host before the next step's first kernel.
    ///
    /// Block operations are done in their order, so that pages may be taken at once.
    /// - Returns: False if the host has no room; nothing was begun then.
    mutating func swapOut(_ slot: Int) -> Bool {
        let needed = tables[slot].reduce(0) { $0 + $1.pages.count }
        guard needed <= hostPool.freeCount else { return false }
        var hostTables = tables[slot]
        var unused = -1
        for (group, table) in tables[slot].enumerated() {
            for (index, page) in table.pages.enumerated() {
                guard let host = hostPool.allocate(lostTag: &unused) else { return false }
                hostTables[group].pages[index] = host
                pendingOperations.append(
                    BlockOperation(kind: .swapOut, group: group, source: page, destination: host))
            }
        }
        releasePages(slot)
        states[slot].hostTables = hostTables
        swapCount += 1
        return true
    }

    /// Copies a request's blocks back and lets it go on; false without enough pages.
    mutating func swapIn(_ slot: Int) -> Bool {
        let needed = states[slot].hostTables.reduce(0) { $0 + $1.pages.count }
        guard needed <= pool.freeCount else { return false }
        var pages = states[slot].hostTables
        for (group, table) in states[slot].hostTables.enumerated() {
            for (index, host) in table.pages.enumerated() {
                guard let page = allocatePage() else { return false }
                pages[group].pages[index] = page
                pendingOperations.append(
                    BlockOperation(kind: .swapIn, group: group, source: host, destination: page))
                hostPool.release(host)
            }
        }
        tables[slot] = pages
        states[slot].heldPages = needed
        states[slot].hostTables = []
        activate(slot)
        return true
    }
}
