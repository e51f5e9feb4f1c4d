// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension Scheduler {
    /// Checks that a request can ever run, and how many answer tokens its context leaves.
    ///
    /// - Throws: `MartletError` `.limitExceeded` naming the number, the limit and the flag.
    package func admissibleTokens(_ request: GenerationRequest) throws -> Int {
        let prompt = request.prompt.count
        let settings = request.settings
        let least = min(settings.maxTokens, 1)
        guard prompt > 0 else {
            throw MartletError(
                .invalidArgument, "the prompt has no tokens, but must have at least 1")
        }
        guard prompt <= limits.maxContext - least else {
            throw MartletError(
                .limitExceeded,
                "the prompt has \(prompt) tokens, but the context of \(limits.maxContext) holds at "
                    + "most \(limits.maxContext - least) beside the answer",
                mend: "Shorten the prompt, or raise --max-context if it is below the model's",
                context: ["promptTokens": "\(prompt)", "limit": "\(limits.maxContext)"])
        }
        try checkSource(request.source.count)
        if request.returnsNamedOutputs, prompt > limits.maxTokens {
            throw MartletError(
                .limitExceeded,
                "a prompt of \(prompt) tokens does not fit a step of \(limits.maxTokens)",
                mend: "Raise --max-num-tokens")
        }
        guard settings.beamCount <= rowLimit else {
            throw MartletError(
                .limitExceeded,
                "\(settings.beamCount) beams do not fit a step of \(rowLimit) rows",
                mend: "Raise --max-batch-size to \(settings.beamCount) or lower --num-beams",
                context: ["beams": "\(settings.beamCount)", "limit": "\(rowLimit)"])
        }
        let maxTokens = max(min(settings.maxTokens, limits.maxContext - prompt), 0)
        let needed = settings.beamCount * pagesPerRow(request, maxTokens: maxTokens)
        guard needed <= pool.pageCount else {
            throw MartletError(
                .limitExceeded,
                "prompt and answer of \(prompt) + \(maxTokens) tokens need \(needed) KV pages,"
                    + " but there are only \(pool.pageCount)",
                mend: "Raise --kv-cache-memory or lower --max-output-len",
                context: ["pages": "\(needed)", "limit": "\(pool.pageCount)"])
        }
        if settings.hasPenalties, !settings.drawsOnHost, stateSlotCount == 0 {
            throw MartletError(
                .unsupported, "the engine has no sampling state, which penalties need")
        }
        return maxTokens
    }

    /// Pages that one row of a request may hold; beams also hold the sources of their copies.
    func pagesPerRow(_ request: GenerationRequest, maxTokens: Int) -> Int {
        budget.pageCount(
            positions: request.prompt.count + max(maxTokens - 1, 0), sources: request.source.count)
            + (request.settings.beamCount > 1 ? budget.groups.count : 0)
    }

    /// Adds a request to the waiting ones.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if it can never run or too many wait,
    ///   `.invalidArgument` if its name is taken.
    package mutating func submit(_ id: RequestID, _ request: GenerationRequest) throws {
        let maxTokens = try admissibleTokens(request)
        guard slotsByID[id] == nil else {
            throw MartletError(.invalidArgument, "\(id) is already under way")
        }
        try Self.checkQueue(waiting.count - waitingHead, limit: options.queueLimit)
        let facts = RequestFacts(
            request: request, maxTokens: maxTokens,
            pagesPerRow: pagesPerRow(request, maxTokens: maxTokens))
        var state = RequestState(id: id, facts: facts)
        state.sharesPrefix = reusesPrefixes
        enqueue(place(state), afterEqual: true)
        if facts.isExclusive { exclusiveCount += 1 }
    }

    /// - Throws: `MartletError` `.limitExceeded` if as many wait as may.
    static func checkQueue(_ count: Int, limit: Int) throws {
        guard count >= limit else { return }
        throw MartletError(
            .limitExceeded, "the queue is full: \(count) requests wait, \(limit) may",
            mend: "Ask again later, or raise the queue's limit",
            context: ["waiting": "\(count)", "limit": "\(limit)"])
    }

    /// Keeps a state at a free slot.
    mutating func place(_ state: RequestState) -> Int {
        let slot: Int
        if let unused = unusedSlots.popLast() {
            slot = unused
            states[slot] = state
        } else {
            slot = states.count
            states.append(state)
            tables.addSlot()
        }
        slotsByID[state.id] = slot
        return slot
    }

    /// Puts a request among the waiting: behind those of higher priority, and behind or before
    /// those of its own.
    mutating func enqueue(_ slot: Int, afterEqual: Bool) {
        let priority = states[slot].facts.priority
        if !afterEqual, waitingHead > 0,
            waitingHead == waiting.count
                || states[waiting[waitingHead]].facts.priority <= priority
        {
            waitingHead -= 1
            waiting[waitingHead] = slot
            return
        }
        var place = waiting.count
        while place > waitingHead {
            let other = states[waiting[place - 1]].facts.priority
            if afterEqual ? other >= priority : other > priority { break }
            place -= 1
        }
        waiting.insert(slot, at: place)
    }

    /// Ends a request or beam, by a stop string or the caller's wish; results in flight will be
    /// dropped.
    ///
    /// - Returns: False if no such request waits or runs.
    @discardableResult
    package mutating func finish(_ id: RequestID) -> Bool {
        guard let slot = slotsByID[id], states[slot].phase != .draining else { return false }
        finishAllBeams(slot)
        // Where only finished rows are left, no step may come that would end them.
        endPaddedBatch()
        return true
    }

    /// Ends a request with all its beams.
    mutating func finishAllBeams(_ slot: Int) {
        let (serial, count) = (states[slot].id.rawValue, states[slot].facts.rowCount)
        guard count > 1 else { return finish(slot: slot) }
        for beam in 0..<count {
            if let other = slotsByID[RequestID(serial, beam: Int32(clamping: beam))],
                states[other].phase != .draining
            {
                finish(slot: other)
            }
        }
    }

    /// Ends all requests.
    package mutating func finishAll() {
        for slot in Array(slotsByID.values) where states[slot].phase != .draining {
            finish(slot: slot)
        }
    }

    /// Computes no more for a request until it is resumed.
    ///
    /// Its row and pages stay its own until others want them.
    package mutating func pause(_ id: RequestID) {
        setPaused(true, id)
        mayHavePaused = true
    }

    /// Goes on with a request that was paused.
    package mutating func resume(_ id: RequestID) { setPaused(false, id) }

    private mutating func setPaused(_ isPaused: Bool, _ id: RequestID) {
        guard let first = slotsByID[id] else { return }
        for beam in 0..<max(states[first].facts.rowCount, 1) {
            let name = RequestID(id.rawValue, beam: Int32(clamping: beam))
            if let slot = slotsByID[name] { states[slot].isPaused = isPaused }
        }
    }

    /// Tokens of history that a step's record holds.
    var historyLimit: Int { limits.maxTokens + limits.maxContext }

    mutating func finish(slot: Int) {
        if states[slot].phase == .waiting {
            if let index = waiting[waitingHead...].firstIndex(of: slot) {
                waiting.remove(at: index)
            }
        } else if let index = active.firstIndex(of: slot) {
            active.remove(at: index)
            awaitedRows -= states[slot].awaitedRows
            if states[slot].isPadding { paddingCount -= 1 }
        }
        states[slot].phase = .draining
        if states[slot].inFlight == 0 {
            retire(slot)
        } else {
            draining.append(slot)
        }
    }

    /// Forgets an ended request that no step names; `settle` gives back its pages.
    mutating func retire(_ slot: Int) {
        if states[slot].admitted { reservedPages -= states[slot].reservedPages }
        states[slot].admitted = false
        releaseStateSlot(slot)
        slotsByID[states[slot].id] = nil
        if states[slot].facts.isExclusive, states[slot].id.beam == 0 { exclusiveCount -= 1 }
        states[slot].phase = .ended
        ended.append(slot)
        if !settlesLater { settle() }
    }

    /// Makes blocks of ended requests known to others, and gives back their pages.
    ///
    /// - Returns: Whether there were any.
    @discardableResult package mutating func settle() -> Bool {
        guard !ended.isEmpty else { return false }
        for slot in ended {
            share(slot, atEnd: true)
            prefixes.prune(states[slot].prefixEnd)
            releasePages(slot)
            states[slot].phase = .unused
            unusedSlots.append(slot)
        }
        ended.removeAll(keepingCapacity: true)
        return true
    }
}
