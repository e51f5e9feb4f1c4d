// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// What one step computed and what the engine looked like, for logs and pictures.
package struct StepTrace: Sendable, Hashable {
    /// What a request's row was for.
    package enum Work: Sendable, Hashable {
        /// Tokens that were known: of a prompt, or of an answer begun before it was paused.
        case prompt
        /// An answer's next token.
        case answer
        /// Nothing: a finished row of a static batch.
        case padding
    }

    /// One request's part of the step.
    package struct Row: Sendable, Hashable {
        /// Request.
        package var request: RequestID
        /// What for.
        package var work: Work
        /// Tokens computed.
        package var tokenCount: Int

        /// Gathers the values.
        package init(request: RequestID, work: Work, tokenCount: Int) {
            self.request = request
            self.work = work
            self.tokenCount = tokenCount
        }
    }

    /// Serial number.
    package var number = 0
    /// Seconds from the engine's start to the submission and to the completion.
    package var submitted = 0.0, completed = 0.0
    /// Seconds that the device worked, as it reports.
    package var deviceSeconds = 0.0
    /// Requests in order of their rows.
    package var rows: [Row] = []
    /// Tokens that the step draws.
    package var drawnCount = 0
    /// Requests that ran when the step was submitted, those without a row in it included.
    package var running: [RequestID] = []
    /// Requests that waited then.
    package var waitingCount = 0
    /// Pages of the KV arena.
    package var pageCount = 0
    /// Pages that requests held when the step was submitted.
    package var usedPageCount = 0
    /// Pages that nobody held, but whose content may be used again.
    package var cachedPageCount = 0
    /// Times that a request was paused for its pages, and that pages went to the host, since the start.
    package var preemptionCount = 0, swapCount = 0
    /// Block copies before the step, to and from the host included.
    package var blockOperationCount = 0

    /// An empty trace.
    package init() {}

    /// Tokens of the rows of one kind.
    package func tokenCount(_ work: Work) -> Int {
        rows.reduce(0) { $0 + ($1.work == work ? $1.tokenCount : 0) }
    }

    /// The step as a line of an iteration log.
    ///
    /// - Parameters:
    ///   - policy: Which policy ran.
    ///   - start: Seconds from the engine's start that count as 0.
    ///   - previous: When the step before was completed: steps overlap on the host, not on the device.
    package func json(policy: String, start: Double, previous: Double) -> JSONValue {
        func milliseconds(_ seconds: Double) -> JSONValue {
            .double((seconds * 1e6).rounded() / 1e3)
        }
        let members: [(String, JSONValue)] = [
            ("policy", .string(policy)), ("step", .int(number)),
            ("start_ms", milliseconds(submitted - start)),
            ("end_ms", milliseconds(completed - start)),
            ("step_ms", milliseconds(completed - max(submitted, previous))),
            ("device_ms", milliseconds(deviceSeconds)),
            ("tokens", .int(rows.reduce(0) { $0 + $1.tokenCount })),
            ("prompt_tokens", .int(tokenCount(.prompt))),
            ("answer_tokens", .int(tokenCount(.answer))),
            ("padding_tokens", .int(tokenCount(.padding))), ("batch", .int(rows.count)),
            ("running", .int(running.count)), ("queue", .int(waitingCount)),
            ("blocks", .int(pageCount)), ("blocks_used", .int(usedPageCount)),
            ("blocks_cached", .int(cachedPageCount)), ("preemptions", .int(preemptionCount)),
            ("swaps", .int(swapCount)), ("block_copies", .int(blockOperationCount)),
        ]
        return .object(JSONObject(members))
    }
}

extension StepTrace {
    /// Notes what is submitted.
    init(_ step: ScheduledStep, _ scheduler: Scheduler, at time: Double) {
        number = step.number
        submitted = time
        rows = step.items.map { item in
            let isPrompt = item.outputIndex == 0 || item.range.count > 1
            return Row(
                request: item.request,
                work: item.isPadding ? .padding : isPrompt ? .prompt : .answer,
                tokenCount: item.range.count)
        }
        drawnCount = step.items.count { $0.samples && !$0.isPadding }
        running = scheduler.running
        let counts = scheduler.counts
        waitingCount = counts.waiting
        pageCount = scheduler.pool.pageCount
        usedPageCount = pageCount - counts.freePages
        cachedPageCount = scheduler.pool.cachedCount
        preemptionCount = scheduler.preemptionCount
        swapCount = scheduler.swapCount
        blockOperationCount = step.blockOperations.count
    }
}

extension Scheduler {
    /// Requests and beams that run, paused readers' and finished rows included, in order of admission.
    package var running: [RequestID] { active.map { states[$0].id } }
}
