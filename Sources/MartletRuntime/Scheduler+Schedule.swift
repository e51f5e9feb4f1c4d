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
        step.historyCount = 0
        guard nextNumber - lastCompleted - 1 < budget.depth else { return false }
        admit()
        addSingles(to: &step)
        addRuns(to: &step)
        guard !step.items.isEmpty else { return false }
        nextNumber += 1
        return true
    }

    /// Answers: requests that want one token.
    ///
    /// Those of one step have room in the next.
    private mutating func addSingles(to step: inout ScheduledStep) {
        for slot in active where !wantsRun(slot) { _ = add(slot, to: &step) }
    }

    /// Prompts: longer runs in order of admission, as much of each as the step has room for.
    private mutating func addRuns(to step: inout ScheduledStep) {
        for slot in active {
            if isFull(step) { return }
            if wantsRun(slot) { _ = add(slot, to: &step) }
        }
    }

    /// Whether the request computes tokens that are known: of its prompt, or of an answer begun before
    /// it was preempted.
    private func wantsRun(_ slot: Int) -> Bool {
        states[slot].scheduled < states[slot].knownCount
    }

    private func isFull(_ step: ScheduledStep) -> Bool {
        step.tokenCount >= limits.maxTokens || step.items.count >= limits.maxRequests
            || step.logitRowCount >= limits.maxLogitRows
    }

    /// Adds wanted positions of a request to the step; false if none could be added.
    private mutating func add(_ slot: Int, to step: inout ScheduledStep) -> Bool {
        let start = states[slot].scheduled
        var length = min(states[slot].wanted - start, limits.maxTokens - step.tokenCount)
        guard length > 0, step.items.count < limits.maxRequests,
            states[slot].phase == .active, !states[slot].isPreempted
        else { return false }
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
        let history = historyCount(slot, start..<start + length)
        guard length > 0, step.historyCount == 0 || step.historyCount + history <= historyLimit,
            take(slot, start..<start + length)
        else { return false }
        let samples = states[slot].samples(at: start + length - 1)
        let item = WorkItem(
            request: states[slot].id, slot: slot, range: start..<start + length,
            contextLogitCount: contextLogits, samples: samples,
            outputIndex: states[slot].sampledCount, firstLogitRow: step.logitRowCount,
            sourceRow: source, historyStart: states[slot].mustReset ? 0 : start,
            historyCount: history, resetsState: states[slot].mustReset)
        states[slot].mustReset = false
        states[slot].scheduled = start + length
        states[slot].lastStep = step.number
        states[slot].inFlight += 1
        if samples {
            states[slot].sampledCount += 1
            states[slot].lastSample = (step.number, item.sampleRow)
        }
        beginCopies(slot, &step)
        step.items.append(item)
        step.historyCount += history
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
                guard let page = allocatePage() ?? pageOfAnother(slot) else { return false }
                states[slot].tables[index].pages.append(page)
                states[slot].heldPages += 1
            }
        }
        return true
    }

    /// Takes a page; whoever looked for its old content finds it no more.
    mutating func allocatePage() -> Int32? {
        var lost = -1
        guard let page = pool.allocate(lostTag: &lost) else { return nil }
        if lost >= 0 { prefixes.forget(tag: lost, pool: &pool) }
        return page
    }

    /// Known tokens that the device's sampling state must be told with a range.
    private func historyCount(_ slot: Int, _ range: Range<Int>) -> Int {
        guard states[slot].stateSlot >= 0 else { return 0 }
        let start = states[slot].mustReset ? 0 : range.lowerBound
        return max(min(range.upperBound, states[slot].knownCount) - start, 0)
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
