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
        for (index, item) in step.items.enumerated() {
            states[item.slot].inFlight -= 1
            if states[item.slot].phase == .draining {
                retireIfDrained(item.slot)
                continue
            }
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
                if event.finishReason != nil { finish(slot: item.slot) }
            }
            if states[item.slot].isPreempted, states[item.slot].phase == .active,
                states[item.slot].inFlight == 0
            {
                suspend(item.slot)
            }
        }
    }

    /// Drops a step that failed on the device; its requests keep their pages until they finish.
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
        states[slot].tokens.append(token)
        event.token = token
        if states[slot].request.settings.stopTokens.contains(token) {
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
