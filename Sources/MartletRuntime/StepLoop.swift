// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// What the engine's thread is told.
enum EngineMessage: Sendable {
    /// A new request, checked already.
    case submit(RequestID, GenerationRequest, any GenerationSink)
    /// The caller no longer wants a request.
    case cancel(RequestID)
    /// The oldest step in flight ended.
    case completed(MartletError?)
    /// End all requests and the thread.
    case shutdown
}

/// The hot path: one thread owns it, takes messages, and keeps the device supplied with steps.
struct StepLoop {
    private let executor: any PlanExecutor
    private let decoding: (any TokenDecoding)?
    private let mailbox: Mailbox<EngineMessage>
    private let shared: EngineShared
    private let builder: StepBuilder
    private let depth: Int
    private var scheduler: Scheduler
    /// Records, outputs and steps in rotation: one more than may be in flight.
    private let records: [StepRecord]
    private let outputs: [StepOutputs]
    private var steps: [ScheduledStep]
    /// Steps submitted and completed since the start; ring places are their remainders.
    private var submitted = 0
    private var completed = 0
    private var live: [RequestID: LiveRequest] = [:]
    private var events: [SchedulerEvent] = []
    private var statistics = EngineStatistics()
    private var failure: MartletError?
    private var isClosing = false

    init(
        executor: any PlanExecutor, decoding: (any TokenDecoding)?, scheduler: Scheduler,
        builder: StepBuilder, mailbox: Mailbox<EngineMessage>, shared: EngineShared
    ) {
        self.executor = executor
        self.decoding = decoding
        self.mailbox = mailbox
        self.shared = shared
        self.builder = builder
        self.scheduler = scheduler
        depth = scheduler.budget.depth
        records = (0...depth).map { _ in
            StepRecord(
                limits: scheduler.limits, groups: builder.groups,
                positionPlanes: builder.positionPlanes)
        }
        outputs = (0...depth).map { _ in StepOutputs() }
        steps = [ScheduledStep](repeating: ScheduledStep(), count: depth + 1)
        statistics.pageCount = scheduler.pool.pageCount
    }

    /// Serves messages until the engine is shut down and nothing is in flight.
    mutating func run() {
        var messages: [EngineMessage] = []
        while !(isClosing && submitted == completed) {
            mailbox.receive(into: &messages)
            let start = ContinuousClock.now
            for message in messages { handle(message) }
            while failure == nil, !isClosing, submitted - completed < depth, submitNext() {}
            statistics.hostSeconds += (ContinuousClock.now - start).seconds
            publish()
        }
    }

    private mutating func handle(_ message: EngineMessage) {
        switch message {
        case .submit(let id, let request, let sink): submit(id, request, sink)
        case .cancel(let id): cancel(id)
        case .completed(let error): complete(error)
        case .shutdown:
            isClosing = true
            endAll(MartletError(.cancelled, "the engine was shut down"))
        }
    }

    private mutating func submit(
        _ id: RequestID, _ request: GenerationRequest, _ sink: any GenerationSink
    ) {
        if let failure { return sink.fail(failure) }
        if isClosing { return sink.fail(MartletError(.cancelled, "the engine was shut down")) }
        do {
            try scheduler.submit(id, request)
            live[id] = LiveRequest(id: id, request: request, decoding: decoding, sink: sink)
        } catch let error as MartletError {
            sink.fail(error)
        } catch {
            sink.fail(MartletError(.internalError, "submission failed", cause: error))
        }
    }

    private mutating func cancel(_ id: RequestID) {
        scheduler.finish(id)
        guard let request = live.removeValue(forKey: id) else { return }
        statistics.cancelledRequestCount += 1
        var event = GenerationEvent()
        event.finishReason = .cancelled
        request.sink.receive(event)
    }

    /// Schedules a step and gives it to the device; false if there is nothing to compute.
    private mutating func submitNext() -> Bool {
        let place = submitted % (depth + 1)
        guard scheduler.schedule(into: &steps[place]) else { return false }
        do {
            try builder.fill(records[place], steps[place], scheduler)
            let mailbox = mailbox
            try executor.submit(records[place], outputs: outputs[place]) {
                mailbox.send(.completed($0))
            }
            submitted += 1
            return true
        } catch {
            let cause = error as? MartletError
            stop(cause ?? MartletError(.internalError, "a step was refused", cause: error))
            return false
        }
    }

    private mutating func complete(_ error: MartletError?) {
        guard completed < submitted else { return }
        let place = completed % (depth + 1)
        completed += 1
        if let error, failure == nil { stop(error) }
        do {
            if failure != nil {
                try scheduler.abandon(steps[place])
                return
            }
            try scheduler.complete(
                steps[place], tokens: outputs[place].tokens, status: outputs[place].status,
                events: &events)
        } catch {
            let cause = error as? MartletError
            return stop(
                cause ?? MartletError(.internalError, "a step has no results", cause: error))
        }
        count(steps[place], outputs[place])
        var logits = LogitCursor(outputs[place].logits)
        var next = 0
        for (index, item) in steps[place].items.enumerated() {
            let context = logits.take(item.contextLogitCount)
            let hasEvent = next < events.count && events[next].item == index
            let event = hasEvent ? events[next] : nil
            next += hasEvent ? 1 : 0
            deliver(event, item, outputs[place], contextLogits: context, logits: &logits)
        }
    }

    private mutating func deliver(
        _ event: SchedulerEvent?, _ item: WorkItem, _ results: StepOutputs,
        contextLogits: ArraySlice<[Float]>, logits: inout LogitCursor
    ) {
        let settings = scheduler.states[item.slot].request.settings
        var row: [Float]?
        if item.samples, settings.returnGenerationLogits {
            let isContext = item.contextLogitCount == item.range.count
            row = isContext ? contextLogits.last : logits.take(1).first
        }
        guard let event, let place = live.index(forKey: event.request) else {
            if item.samples { statistics.discardedRowCount += 1 }
            return
        }
        let sink = live.values[place].sink
        if event.finishReason == .error {
            live.remove(at: place)
            statistics.failedRequestCount += 1
            publish()
            return sink.fail(Self.rowError(event, item))
        }
        var news = GenerationEvent()
        news.contextLogits = Array(contextLogits)
        var finish = event.finishReason
        if let token = event.token {
            news.index = item.outputIndex
            news.token = token
            news.text = live.values[place].text(
                of: token, index: item.outputIndex, finish: &finish)
            news.generationLogits = row
            if settings.logProbabilities != nil, item.sampleRow < results.logProbabilities.count {
                news.logProbability = results.logProbabilities[item.sampleRow]
                if item.sampleRow < results.topLogProbabilities.count {
                    news.topLogProbabilities = results.topLogProbabilities[item.sampleRow]
                }
            }
            statistics.generatedTokenCount += 1
        }
        news.finishReason = finish
        if finish != nil {
            if event.finishReason == nil { scheduler.finish(event.request) }
            live.remove(at: place)
            statistics.finishedRequestCount += 1
            publish()  // Before the caller learns of the end, so that it finds it counted.
        }
        sink.receive(news)
    }

    private static func rowError(_ event: SchedulerEvent, _ item: WorkItem) -> MartletError {
        let place =
            "token \(item.outputIndex) of the answer (position \(item.range.upperBound - 1))"
        if event.status == .noCandidate {
            return MartletError(
                .invalidArgument, "logit bias and mask forbid every token at \(place)",
                mend: "Forbid fewer tokens")
        }
        return MartletError(
            .device, "the logits for \(place) are not finite",
            mend: "Use a wider dtype, such as --dtype f32")
    }

    /// The device failed: all requests end with this cause, later ones are refused with it.
    private mutating func stop(_ error: MartletError) {
        failure = MartletError(
            .device, "the engine stopped after a device error",
            mend: "Load the engine anew", context: error.context, cause: error)
        shared.fail(failure)
        statistics.failedRequestCount += live.count
        publish()
        endAll(error)
    }

    private mutating func endAll(_ error: MartletError) {
        scheduler.finishAll()
        for request in live.values { request.sink.fail(error) }
        live.removeAll()
    }

    private mutating func count(_ step: ScheduledStep, _ results: StepOutputs) {
        statistics.stepCount += 1
        statistics.tokenCount += step.tokenCount
        for item in step.items {
            // An answer's token comes after a drawn one; runs are prompts, or resumed.
            if item.outputIndex == 0 || item.range.count > 1 {
                statistics.prefillTokenCount += item.range.count
            } else {
                statistics.decodeTokenCount += item.range.count
            }
        }
        statistics.largestBatch = max(statistics.largestBatch, step.items.count)
        statistics.deviceSeconds += results.deviceSeconds
    }

    private mutating func publish() {
        let counts = scheduler.counts
        statistics.waitingCount = counts.waiting
        statistics.activeCount = counts.active
        statistics.freePageCount = counts.freePages
        statistics.reusedTokenCount = scheduler.reusedTokenCount
        statistics.preemptionCount = scheduler.preemptionCount
        shared.publish(statistics)
    }
}

/// Walks through the logit rows that a step returned.
private struct LogitCursor {
    private let rows: [[Float]]
    private var next = 0

    init(_ rows: [[Float]]) { self.rows = rows }

    mutating func take(_ count: Int) -> ArraySlice<[Float]> {
        let start = min(next, rows.count)
        next = min(start + count, rows.count)
        return rows[start..<next]
    }
}
