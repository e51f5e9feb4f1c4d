// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Requests with an encoder: their sources come first, each whole, several in a step of their own.
extension Scheduler {
    /// - Throws: `MartletError` if a source is missing, does not fit a step, or nobody reads one.
    func checkSource(_ count: Int) throws {
        guard streams.source != nil else {
            guard count > 0 else { return }
            throw MartletError(
                .invalidArgument,
                "the request has \(count) source tokens, but the model no encoder",
                mend: "Put the text into the prompt")
        }
        guard count > 0 else {
            throw MartletError(
                .invalidArgument, "the request has no source tokens for the model's encoder")
        }
        let limit = min(limits.maxTokens, limits.maxContext)
        guard count <= limit else {
            throw MartletError(
                .limitExceeded, "the request has \(count) source tokens, but a step holds \(limit)",
                mend: "Shorten the source, or raise --max-num-tokens and --max-context",
                context: ["sourceTokens": "\(count)", "limit": "\(limit)"])
        }
    }

    /// Adds the sources of requests that run and have not begun, as many as fit; false for none.
    mutating func addSources(to step: inout ScheduledStep) -> Bool {
        guard let source = streams.source else { return false }
        for slot in active where states[slot].source.scheduled < states[slot].source.wanted {
            let count = states[slot].source.wanted
            guard step.items.count < limits.maxRequests else { break }
            guard step.tokenCount + count <= limits.maxTokens, states[slot].phase == .active,
                !states[slot].isPreempted, !states[slot].isPaused,
                source.uses.allSatisfy({
                    !$0.isWritten || takePages(slot, group: $0.group, upTo: count)
                })
            else { continue }
            states[slot].source.scheduled = count
            states[slot].lastStep = step.number
            states[slot].inFlight += 1
            step.items.append(
                WorkItem(
                    request: states[slot].id, slot: slot, range: 0..<count, stream: .source,
                    samples: false, resetsState: false, contextLogitCount: 0, outputIndex: 0,
                    firstLogitRow: step.logitRowCount, historyCount: 0))
            step.tokenCount += count
        }
        if !step.items.isEmpty { step.stream = .source }
        return !step.items.isEmpty
    }

    /// Takes note that a source is computed; what only the encoder reads goes.
    mutating func endSource(_ item: WorkItem) {
        states[item.slot].source.computed = item.range.upperBound
        for group in streams.transient {
            let pages = tables[item.slot, group].pages
            for page in pages { pool.release(page) }
            states[item.slot].heldPages -= pages.count
            tables[item.slot, group] = BlockTable()
        }
    }
}
