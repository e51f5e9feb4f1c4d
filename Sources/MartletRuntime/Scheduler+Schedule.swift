// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Chooses the next step.
    ///
    /// - Parameter step: Replaced; its memory is used again.
    /// - Returns: False if nothing can be computed now; no step is begun then.
    package mutating func schedule(into step: inout ScheduledStep) -> Bool {
        step.number = nextNumber
        step.items.removeAll(keepingCapacity: true)
        step.blockOperations.removeAll(keepingCapacity: true)
        step.tokenCount = 0
        step.logitRowCount = 0
        guard nextNumber - lastCompleted - 1 < budget.depth else { return false }
        admit()
        addSingles(to: &step)
        addRuns(to: &step)
        guard !step.items.isEmpty else { return false }
        nextNumber += 1
        return true
    }

    /// Lets waiting requests in by arrival: one that does not fit holds up those behind it.
    private mutating func admit() {
        if policy == .static, !active.isEmpty { return }
        while waitingHead < waiting.count, active.count < limits.maxRequests {
            let slot = waiting[waitingHead]
            guard states[slot].reservedPages <= pool.pageCount - reservedPages else { break }
            if states[slot].request.settings.needsHistory {
                guard let stateSlot = freeStateSlots.popLast() else { break }
                states[slot].stateSlot = stateSlot
            }
            reservedPages += states[slot].reservedPages
            states[slot].admitted = true
            states[slot].phase = .active
            active.append(slot)
            waitingHead += 1
        }
        if waitingHead > 64, waitingHead * 2 > waiting.count {
            waiting.removeFirst(waitingHead)
            waitingHead = 0
        }
    }

    /// Answers: requests that want one token.
    ///
    /// Those of one step have room in the next.
    private mutating func addSingles(to step: inout ScheduledStep) {
        for slot in active {
            guard states[slot].scheduled >= states[slot].promptCount,
                states[slot].wanted > states[slot].scheduled
            else { continue }
            _ = add(slot, count: 1, to: &step)
        }
    }

    /// Prompts: longer runs in order of admission, as much of each as the step has room for.
    private mutating func addRuns(to step: inout ScheduledStep) {
        for slot in active {
            if isFull(step) { return }
            guard states[slot].scheduled < states[slot].promptCount else { continue }
            _ = add(slot, count: states[slot].wanted - states[slot].scheduled, to: &step)
        }
    }

    private func isFull(_ step: ScheduledStep) -> Bool {
        step.tokenCount >= limits.maxTokens || step.items.count >= limits.maxRequests
            || step.logitRowCount >= limits.maxLogitRows
    }

    /// Adds up to so many positions of a request to the step; false if none could be added.
    private mutating func add(_ slot: Int, count: Int, to step: inout ScheduledStep) -> Bool {
        let start = states[slot].scheduled
        var length = min(count, limits.maxTokens - step.tokenCount)
        guard length > 0, step.items.count < limits.maxRequests else { return false }
        var source: Int?
        if start >= states[slot].tokens.count {
            guard states[slot].lastSample.step == step.number - 1, states[slot].inFlight > 0 else {
                return false
            }
            source = states[slot].lastSample.row
        }
        let room = limits.maxLogitRows - step.logitRowCount
        var contextLogits = 0
        if states[slot].request.settings.returnContextLogits, start < states[slot].promptCount {
            length = min(length, room, states[slot].promptCount - start)
            contextLogits = length
        } else if states[slot].samples(at: start + length - 1), room == 0 {
            length -= 1
        }
        guard length > 0, take(slot, start..<start + length) else { return false }
        let samples = states[slot].samples(at: start + length - 1)
        let item = WorkItem(
            request: states[slot].id, slot: slot, range: start..<start + length,
            contextLogitCount: contextLogits, samples: samples,
            outputIndex: states[slot].sampledCount, firstLogitRow: step.logitRowCount,
            sourceRow: source, resetsState: start == 0)
        states[slot].scheduled = start + length
        states[slot].lastStep = step.number
        states[slot].inFlight += 1
        if samples {
            states[slot].sampledCount += 1
            states[slot].lastSample = (step.number, item.sampleRow)
        }
        step.items.append(item)
        step.tokenCount += length
        step.logitRowCount += item.logitRowCount
        return true
    }

    /// Lets pages go that left the window, and takes those that the range needs; false without
    /// enough pages.
    private mutating func take(_ slot: Int, _ range: Range<Int>) -> Bool {
        for (index, group) in budget.groups.enumerated() {
            if let window = group.window {
                let first = max(range.lowerBound - window + 1, 0) / group.blockSize
                drop(slot, group: index, before: first)
            }
            let end = (range.upperBound - 1) / group.blockSize + 1
            while states[slot].tables[index].firstBlock + states[slot].tables[index].pages.count
                < end
            {
                guard let page = pool.allocate() else { return false }
                states[slot].tables[index].pages.append(page)
                states[slot].heldPages += 1
            }
        }
        return true
    }

    private mutating func drop(_ slot: Int, group: Int, before first: Int) {
        let count = min(
            first - states[slot].tables[group].firstBlock, states[slot].tables[group].pages.count)
        guard count > 0 else { return }
        for page in states[slot].tables[group].pages[..<count] {
            if states[slot].inFlight > 0 {
                deferred.append((states[slot].lastStep, page, slot))
            } else {
                pool.release(page)
                states[slot].heldPages -= 1
            }
        }
        states[slot].tables[group].pages.removeFirst(count)
        states[slot].tables[group].firstBlock += count
    }
}
