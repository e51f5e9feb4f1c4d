// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

extension Scheduler {
    /// Takes in the results of a step, ends requests and frees pages.
    ///
    /// - Parameters:
    ///   - step: The oldest step in flight.
    ///   - tokens: `[O]` tokens drawn.
    ///   - status: `[O]` states of rows.
    ///   - events: Becomes what happened to requests that still run, in order of items.
    /// - Throws: `MartletError` `.internalError` if the step is not the oldest in flight or
    ///   results are missing.
    package mutating func complete(
        _ step: ScheduledStep, tokens: [Int32], status: [RowStatus],
        events: inout [SchedulerEvent]
    ) throws {
        events.removeAll(keepingCapacity: true)
        guard step.number == lastCompleted + 1, step.number < nextNumber else {
            throw MartletError(
                .internalError, "step \(step.number) completed after step \(lastCompleted)")
        }
        guard tokens.count >= step.logitRowCount, status.count >= step.logitRowCount else {
            throw MartletError(
                .internalError,
                "step \(step.number) has \(step.logitRowCount) logit rows, but results of "
                    + "\(min(tokens.count, status.count))")
        }
        lastCompleted = step.number
        releaseDeferred()
        var next = 0
        while true {
            next = takeTokens(step, from: next, tokens, status, &events)
            guard next < step.items.count else { break }
            takeIn(step.items[next], next, tokens, status, &events)
            next += 1
        }
        endPaddedBatch()
    }

    /// Takes in answers' tokens as long as nothing else is to be done; returns the first other item.
    private mutating func takeTokens(
        _ step: ScheduledStep, from first: Int, _ tokens: [Int32], _ status: [RowStatus],
        _ events: inout [SchedulerEvent]
    ) -> Int {
        let count = step.items.count
        var index = first
        states.withUnsafeMutableBufferPointer { states in
            step.items.withUnsafeBufferPointer { items in
                events.append(addingCapacity: count - first) { events in
                    while index < count, items[index].samples {
                        let row = items[index].sampleRow
                        guard case .ok = status[row],
                            Self.takeToken(
                                tokens[row], items[index], &states[items[index].slot])
                        else { return }
                        events.append(
                            SchedulerEvent(
                                request: items[index].request, item: index, token: tokens[row],
                                status: .ok, finishReason: nil))
                        index &+= 1
                    }
                }
            }
        }
        return index
    }

    /// Takes in the result of one item, whatever it is.
    private mutating func takeIn(
        _ item: WorkItem, _ index: Int, _ tokens: [Int32], _ status: [RowStatus],
        _ events: inout [SchedulerEvent]
    ) {
        states[item.slot].inFlight -= 1
        if states[item.slot].phase == .draining {
            retireIfDrained(item.slot)
            return
        }
        if states[item.slot].isPadding { return }
        if item.stream == .source { return endSource(item) }
        states[item.slot].computed = item.range.upperBound
        // Answers are shared at their end, so that decoding allocates nothing.
        if item.range.lowerBound < states[item.slot].knownCount { share(item.slot) }
        let row = item.samples ? item.sampleRow : 0
        let event = outcome(
            item, index: index, token: item.samples ? tokens[row] : -1,
            status: item.samples ? status[row] : .notSampled)
        if let event {
            events.append(event)
            if event.finishReason == .error { states[item.slot].sharesPrefix = false }
            if event.status == .nonFinite { unshare(item.slot) }
            if event.finishReason != nil { end(item.slot, event.finishReason) }
        }
    }

    /// Takes in an answer's token where nothing else is to be done; the hot path of `complete`.
    ///
    /// - Returns: False if the request has to be looked at more closely; nothing has changed then.
    @inline(__always)
    private static func takeToken(
        _ token: Int32, _ item: WorkItem, _ state: inout RequestState
    ) -> Bool {
        guard token >= 0, item.range.lowerBound >= state.knownCount, state.phase == .active,
            state.obstacles.isDisjoint(with: [.notPlain, .padding, .preempted]),
            item.outputIndex &+ 1 < state.maxTokens,
            !state.hasStops || !state.facts.stopTokens.contains(token)
        else { return false }
        state.inFlight &-= 1
        state.computed = item.range.upperBound
        state.tokens.append(token)
        return true
    }

    /// Ends a request, or, in a static batch, lets its row be computed on until all have ended.
    private mutating func end(_ slot: Int, _ reason: FinishReason?) {
        guard policy == .static, reason != .error else { return finishAllBeams(slot) }
        states[slot].isPadding = true
        paddingCount += 1
    }

    /// Ends a request whose text reached a stop string.
    package mutating func stop(_ id: RequestID) {
        guard let slot = slotsByID[id], states[slot].phase == .active, !states[slot].isPadding
        else {
            finish(id)
            return
        }
        end(slot, .stopString)
        endPaddedBatch()
    }

    /// Ends a static batch whose requests have all finished.
    mutating func endPaddedBatch() {
        guard paddingCount > 0, paddingCount == active.count else { return }
        for slot in active { finish(slot: slot) }
    }

    /// Drops a step that failed on the device; its requests keep their pages until they finish, and
    /// nothing may be scheduled before: their tokens are not known.
    ///
    /// - Throws: `MartletError` `.internalError` if the step is not the oldest in flight.
    package mutating func abandon(_ step: ScheduledStep) throws {
        guard step.number == lastCompleted + 1, step.number < nextNumber else {
            throw MartletError(
                .internalError, "step \(step.number) failed after step \(lastCompleted)")
        }
        lastCompleted = step.number
        releaseDeferred()
        for item in step.items {
            states[item.slot].inFlight -= 1
            states[item.slot].sharesPrefix = false
            if states[item.slot].phase == .draining { retireIfDrained(item.slot) }
        }
    }

    private mutating func outcome(
        _ item: WorkItem, index: Int, token: Int32, status: RowStatus
    ) -> SchedulerEvent? {
        let slot = item.slot
        var event = SchedulerEvent(
            request: item.request, item: index, token: nil, status: status, finishReason: nil)
        guard item.samples else {
            let ends =
                states[slot].maxTokens == 0 && item.range.upperBound == states[slot].promptCount
            if ends { event.finishReason = .length }
            return ends || item.contextLogitCount > 0 ? event : nil
        }
        guard status == .ok, token >= 0 else {
            event.finishReason = .error
            return event
        }
        event.token = token
        // The tokens of beams are known when all beams have been compared.
        guard states[slot].facts.rowCount == 1 else { return event }
        states[slot].tokens.append(token)
        if states[slot].facts.stopTokens.contains(token) {
            event.finishReason = .stopToken
        } else if item.outputIndex + 1 >= states[slot].maxTokens {
            event.finishReason = .length
        }
        return event
    }

    private mutating func retireIfDrained(_ slot: Int) {
        guard states[slot].inFlight == 0, let index = draining.firstIndex(of: slot) else { return }
        draining.remove(at: index)
        retire(slot)
    }

    private mutating func releaseDeferred() {
        var kept = 0
        for entry in deferred {
            if entry.step <= lastCompleted {
                pool.release(entry.page)
                states[entry.slot].heldPages -= 1
            } else {
                deferred[kept] = entry
                kept += 1
            }
        }
        deferred.removeLast(deferred.count - kept)
    }
}
