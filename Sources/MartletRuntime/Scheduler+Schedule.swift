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
        step.stream = .generating
        step.items.removeAll(keepingCapacity: true)
        step.blockOperations.removeAll(keepingCapacity: true)
        step.tokenCount = 0
        step.logitRowCount = 0
        step.historyCount = 0
        step.needsHost = false
        step.layout = 0
        guard nextNumber - lastCompleted - 1 < budget.depth else { return false }
        // Copies of partly known blocks are left out where pages are short.
        if pool.freeCount < pool.pageCount / 8 { settle() }
        suspendPreempted()
        // Pages that a pause has freed are for those who asked for them, not for who gave them up.
        let holdsBack = isShortOfPages && !active.isEmpty
        isShortOfPages = false
        if !holdsBack { admit() }
        fill(&step)
        if step.items.isEmpty, holdsBack {
            admit()
            fill(&step)
        }
        guard !step.items.isEmpty else { return false }
        step.blockOperations.append(contentsOf: pendingOperations)
        pendingOperations.removeAll(keepingCapacity: true)
        nextNumber += 1
        return true
    }

    /// Adds what running requests want.
    private mutating func fill(_ step: inout ScheduledStep) {
        // Every other step at most is one prompt's own or of sources, while others have something to
        // compute.
        let mayBeExclusive = !lastWasExclusive
        lastWasExclusive = mayBeExclusive && (addSources(to: &step) || addExclusive(to: &step))
        if !lastWasExclusive {
            if addSingles(to: &step), step.logitRowCount == active.count {
                step.layout = activeStamp
            } else {
                addRuns(to: &step)
            }
            if step.items.isEmpty, !mayBeExclusive {
                lastWasExclusive = addSources(to: &step) || addExclusive(to: &step)
            }
        }
    }

    /// A prompt that wants a step of its own; false if none is waiting for one.
    private mutating func addExclusive(to step: inout ScheduledStep) -> Bool {
        guard exclusiveCount > 0 else { return false }
        for slot in active where states[slot].facts.isExclusive && wantsRun(slot) {
            if add(slot, to: &step) { return true }
        }
        return false
    }

    /// Answers: requests that want one token, and finished ones whose rows are computed on.
    ///
    /// - Returns: Whether nothing else was to be done for any than to add its token.
    private mutating func addSingles(to step: inout ScheduledStep) -> Bool {
        // A copy of the list, which changes when a request is paused.
        let slots = active
        var next = 0
        var isSimple = true
        // Rows are computed on beside those that want tokens: not while all of these wait for their readers.
        let pads =
            paddingCount > 0 && slots.contains { !states[$0].isPadding && !states[$0].isPaused }
        while true {
            next = addTokens(of: slots, from: next, to: &step)
            guard next < slots.count else { return isSimple }
            let slot = slots[next]
            if states[slot].isAtBoundary, takesPageSimply(slot) { continue }
            isSimple = false
            next += 1
            if states[slot].isPadding {
                if pads { addPadding(slot, to: &step) }
            } else if !wantsRun(slot) {
                _ = add(slot, to: &step)
            }
        }
    }

    /// Takes a page for an answer whose blocks are full; false if more than that is to be done.
    ///
    /// `add` does so too, but looks at all that a request may want.
    private mutating func takesPageSimply(_ slot: Int) -> Bool {
        let start = states[slot].scheduled
        return !states[slot].sharesLastBlock && states[slot].copies.isEmpty
            && pool.freeCount >= budget.groups.count && take(slot, start..<start + 1)
            && start < states[slot].nextBoundary
    }

    /// Takes pages that answers want in the next step, if there are plenty: it will find them there.
    ///
    /// What leaves a window for it leaves now, and what was in the page is forgotten now. Not in a batch whose
    /// finished rows are computed on: their last position still sees what would leave.
    package mutating func takePagesAhead() {
        guard policy != .static, pool.freeCount >= 2 * active.count * budget.groups.count else {
            return
        }
        for slot in active where states[slot].isAtBoundary { _ = takesPageSimply(slot) }
    }

    /// Adds answers' next tokens as long as nothing else is to be done; returns the first other
    /// place in the list.
    private mutating func addTokens(
        of slots: [Int], from first: Int, to step: inout ScheduledStep
    ) -> Int {
        let room = min(
            limits.maxRequests - step.items.count, limits.maxTokens - step.tokenCount,
            limits.maxLogitRows - step.logitRowCount)
        let end = first + min(max(room, 0), slots.count - first)
        // An array without memory shares its count, which even an empty append would write.
        guard end > first else { return first }
        let (number, firstRow, lastCompleted) = (step.number, step.logitRowCount, lastCompleted)
        var place = first
        states.withUnsafeMutableBufferPointer { states in
            step.items.append(addingCapacity: end - first) { items in
                while place < end,
                    let item = Self.addToken(
                        &states[slots[place]], slots[place], firstRow &+ (place &- first), number,
                        lastCompleted)
                {
                    items.append(item)
                    place &+= 1
                }
            }
        }
        step.tokenCount += place - first
        step.logitRowCount += place - first
        return place
    }

    /// Adds an answer's next token where nothing else is to be done; the hot path of `add`.
    ///
    /// - Returns: Nil if the request has to be looked at more closely.
    @inline(__always)
    private static func addToken(
        _ state: inout RequestState, _ slot: Int, _ row: Int, _ step: Int, _ lastCompleted: Int
    ) -> WorkItem? {
        let start = state.scheduled
        guard start < state.nextBoundary, state.addsToken else { return nil }
        var source: Int32?
        // The token there is known once the step that draws it has completed.
        if state.lastSampleStep > lastCompleted {
            guard state.lastSampleStep == step &- 1 else { return nil }
            source = Int32(truncatingIfNeeded: state.lastSampleRow)
        }
        let index = state.sampledCount
        state.scheduled = start &+ 1
        state.sampledCount = index &+ 1
        state.inFlight &+= 1
        state.lastStep = step
        state.lastSampleStep = step
        state.lastSampleRow = row
        return WorkItem(
            request: state.id, slot: slot, range: Range(uncheckedBounds: (start, start &+ 1)),
            sourceRow: source, samples: true, resetsState: false, contextLogitCount: 0,
            outputIndex: index, firstLogitRow: row, historyCount: 0)
    }

    /// Prompts: longer runs in order of priority, then admission, as much of each as the step has
    /// room for.
    ///
    /// Every other time in order of admission alone, so that none starves.
    private mutating func addRuns(to step: inout ScheduledStep) {
        defer { runsByAdmission.toggle() }
        if runsByAdmission {
            for slot in active where wantsRun(slot) && !states[slot].facts.isExclusive {
                if isFull(step) { return }
                _ = add(slot, to: &step)
            }
            return
        }
        var next: Int?
        for slot in active where wantsRun(slot) && !states[slot].facts.isExclusive {
            let priority = states[slot].facts.priority
            if next.map({ $0 < priority }) ?? true { next = priority }
        }
        while let priority = next {
            next = nil
            for slot in active where wantsRun(slot) && !states[slot].facts.isExclusive {
                if isFull(step) { return }
                let own = states[slot].facts.priority
                if own == priority {
                    _ = add(slot, to: &step)
                } else if own < priority, next.map({ $0 < own }) ?? true {
                    next = own
                }
            }
        }
    }

    /// Computes the last position of a finished request again; the result is dropped.
    ///
    /// The page is its own: nobody else has entered since the batch began. Where steps in flight
    /// drew tokens that nobody wants, the newest known one stands for them.
    private mutating func addPadding(_ slot: Int, to step: inout ScheduledStep) {
        let end = states[slot].scheduled
        guard !isFull(step), end > 0, seesWindow(slot, end - 1) else { return }
        var item = WorkItem(
            request: states[slot].id, slot: slot, range: end - 1..<end, samples: true,
            resetsState: false, contextLogitCount: 0, outputIndex: 0,
            firstLogitRow: step.logitRowCount, historyCount: 0)
        item.isPadding = true
        states[slot].lastStep = step.number
        states[slot].inFlight += 1
        step.items.append(item)
        step.tokenCount += 1
        step.logitRowCount += 1
    }

    /// Whether all that a position sees is in the tables: blocks may have left a window for a next position that was
    /// not scheduled then.
    private func seesWindow(_ slot: Int, _ position: Int) -> Bool {
        budget.groups.indices.allSatisfy { index in
            guard let window = budget.groups[index].window else { return true }
            let start = tables[slot, index].firstBlock * budget.groups[index].blockSize
            return start <= max(position + 1 - window, 0)
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
            states[slot].phase == .active, !states[slot].isPreempted, !states[slot].isPaused,
            states[slot].source.isComputed
        else { return false }
        var source: Int32?
        if start >= states[slot].tokens.count {
            guard !states[slot].facts.needsTokens, states[slot].inFlight > 0,
                states[slot].lastSampleStep == step.number - 1
            else { return false }
            source = Int32(truncatingIfNeeded: states[slot].lastSampleRow)
        }
        let room = limits.maxLogitRows - step.logitRowCount
        var contextLogits = 0
        if states[slot].facts.wantsPromptLogits, start < states[slot].promptCount {
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
        if samples, states[slot].facts.bansTokens {
            states[slot].bans = states[slot].request.settings.bannedTokens(
                after: states[slot].tokens)
        }
        var item = WorkItem(
            request: states[slot].id, slot: slot, range: start..<start + length, sourceRow: source,
            samples: samples, resetsState: states[slot].mustReset,
            contextLogitCount: contextLogits, outputIndex: states[slot].sampledCount,
            firstLogitRow: step.logitRowCount, historyCount: history)
        item.returnedRowCount = item.returnedRowCount(states[slot].facts)
        item.drawsOnHost = samples && states[slot].facts.drawsOnHost
        step.needsHost =
            step.needsHost || item.drawsOnHost || samples && states[slot].facts.rowCount > 1
        states[slot].mustReset = false
        states[slot].scheduled = start + length
        states[slot].lastStep = step.number
        states[slot].inFlight += 1
        if samples {
            states[slot].sampledCount += 1
            states[slot].lastSampleStep = step.number
            states[slot].lastSampleRow = item.sampleRow
        }
        beginCopies(slot, step: step.number)
        step.items.append(item)
        step.historyCount += history
        step.tokenCount += length
        step.logitRowCount += item.logitRowCount
        return true
    }

    /// Lets pages go that left the window, and takes those that the range needs; false without
    /// enough pages.
    private mutating func take(_ slot: Int, _ range: Range<Int>) -> Bool {
        for index in budget.groups.indices where !streams.holdsSource[index] {
            if let window = budget.groups[index].window {
                let first = max(range.lowerBound - window + 1, 0) / budget.groups[index].blockSize
                drop(slot, group: index, before: first)
            }
            guard takePages(slot, group: index, upTo: range.upperBound) else { return false }
        }
        if states[slot].sharesLastBlock, !ownLastBlock(slot, at: range.lowerBound) { return false }
        states[slot].nextBoundary = boundary(slot)
        return true
    }

    /// Gives a request pages of a group up to a position; false without enough.
    mutating func takePages(_ slot: Int, group: Int, upTo end: Int) -> Bool {
        let blocks = (end - 1) / budget.groups[group].blockSize + 1
        while tables[slot, group].firstBlock + tables[slot, group].pages.count
            < blocks
        {
            guard let page = allocatePage() ?? pageOfAnother(slot) else { return false }
            tables[slot, group].append(page)
            states[slot].heldPages += 1
        }
        return true
    }

    /// The first position that pages are lacking for, or that lets a page leave a window.
    private func boundary(_ slot: Int) -> Int {
        var first = Int(Int32.max)  // The most that `nextBoundary` holds.
        for index in budget.groups.indices where !streams.holdsSource[index] {
            let blockSize = budget.groups[index].blockSize
            let start = tables[slot, index].firstBlock
            first = min(first, (start + tables[slot, index].pages.count) * blockSize)
            if let window = budget.groups[index].window {
                first = min(first, (start + 1) * blockSize + window - 1)
            }
        }
        return first
    }

    /// Takes a page; whoever looked for its old content finds it no more.
    mutating func allocatePage() -> Int32? {
        var lost = -1
        if pool.freeCount == 0 { settle() }
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
            first - tables[slot, group].firstBlock, tables[slot, group].pages.count)
        guard count > 0 else { return }
        for page in tables[slot, group].pages[..<count] {
            if states[slot].inFlight > 0 {
                deferred.append((states[slot].lastStep, page, slot))
            } else {
                pool.release(page)
                states[slot].heldPages -= 1
            }
        }
        tables[slot, group].pages.removeFirst(count)
        tables[slot, group].firstBlock += count
    }
}
