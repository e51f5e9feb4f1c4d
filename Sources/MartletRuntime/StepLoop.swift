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
    /// The reader of a request has caught up.
    case resume(RequestID)
    /// From now on, who is told what steps compute.
    case observe((@Sendable (StepTrace) -> Void)?)
    /// The oldest step in flight ended.
    case completed(MartletError?)
    /// End all requests and the thread.
    case shutdown
}

/// The hot path: one thread owns it, takes messages, and keeps the device supplied with steps.
///
/// When a step completes, the next is submitted first; then readers are told. So text, stop strings
/// and readers cost the device no time; a request that a stop string ends may have one more row
/// computed for nothing.
struct StepLoop {
    let executor: any PlanExecutor
    let decoding: (any TokenDecoding)?
    let shared: EngineShared
    let builder: StepBuilder
    let depth: Int
    private let mailbox: Mailbox<EngineMessage>
    private let onCompletion: @Sendable (MartletError?) -> Void
    var scheduler: Scheduler
    /// Records, outputs and steps in rotation: one more than may be in flight.
    private let records: [StepRecord]
    let outputs: [StepOutputs]
    var steps: [ScheduledStep]
    /// Steps submitted and completed since the start; ring places are their remainders.
    private var submitted = 0
    private var completed = 0
    /// What readers see of running requests, by the scheduler's slot; of beams, by the first one's.
    var live: [LiveRequest?] = []
    var events: [SchedulerEvent] = []
    var statistics = EngineStatistics()
    var hostSampler: HostSampler
    /// Failures on the host in the step that completes, by item.
    var hostFailures: [Int: MartletError] = [:]
    /// Slots of searches that ended with the step that completes.
    var endedSearches: [Int] = []
    private var failure: MartletError?
    private var isClosing = false
    /// Who is told what steps compute, and what is known of those in flight.
    private var observer: (@Sendable (StepTrace) -> Void)?
    private var traces: [StepTrace]
    private let startTime = ContinuousClock.now
    /// When steps were submitted, by ring place, and when the newest completion was noticed.
    private var submissionTimes: [ContinuousClock.Instant]
    private var lastCompletion = ContinuousClock.now
    /// When the oldest completion was noticed that no submission has followed yet.
    private var completionTime: ContinuousClock.Instant?

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
        onCompletion = { mailbox.send(.completed($0)) }
        depth = scheduler.budget.depth
        records = (0...depth).map { _ in
            StepRecord(for: executor, positionPlanes: builder.positionPlanes)
        }
        outputs = (0...depth).map { _ in StepOutputs() }
        steps = [ScheduledStep](repeating: ScheduledStep(), count: depth + 1)
        traces = [StepTrace](repeating: StepTrace(), count: depth + 1)
        submissionTimes = [ContinuousClock.Instant](repeating: startTime, count: depth + 1)
        hostSampler = HostSampler(vocabularySize: builder.vocabularySize)
        statistics.pageCount = scheduler.pool.pageCount
    }

    /// Serves messages until the engine is shut down and nothing is in flight.
    mutating func run() {
        var messages: [EngineMessage] = []
        while !(isClosing && submitted == completed) {
            mailbox.receive(
                into: &messages, spin: submitted > completed ? executor.spinDuration : .zero)
            let start = ContinuousClock.now
            for message in messages { handle(message) }
            supplyDevice()
            statistics.hostSeconds += (ContinuousClock.now - start).seconds
            publish()
        }
    }

    private mutating func handle(_ message: EngineMessage) {
        switch message {
        case .submit(let id, let request, let sink): submit(id, request, sink)
        case .cancel(let id): cancel(id)
        case .resume(let id): scheduler.resume(id)
        case .observe(let observer): self.observer = observer
        case .completed(let error): complete(error)
        case .shutdown:
            isClosing = true
            endAll(MartletError(.cancelled, "the engine was shut down"))
        }
    }

    private mutating func submit(
        _ id: RequestID, _ request: GenerationRequest, _ sink: any GenerationSink
    ) {
        defer { shared.noteSubmission(waiting: scheduler.counts.waiting) }
        if let failure { return sink.fail(failure) }
        if isClosing { return sink.fail(MartletError(.cancelled, "the engine was shut down")) }
        do {
            try scheduler.submit(id, request)
            guard let slot = scheduler.slot(of: id) else { return }
            while live.count <= slot { live.append(nil) }
            let entry = LiveRequest(id: id, request: request, decoding: decoding, sink: sink)
            if entry.isSearch {
                entry.search = BeamSearch(
                    request.settings, maxTokens: scheduler.states[slot].facts.maxTokens,
                    text: entry.text.mayEnd ? entry.text : nil)
            }
            live[slot] = entry
        } catch let error as MartletError {
            sink.fail(error)
        } catch {
            sink.fail(MartletError(.internalError, "submission failed", cause: error))
        }
    }

    private mutating func cancel(_ id: RequestID) {
        guard let slot = scheduler.slot(of: id), live.indices.contains(slot),
            let request = live[slot], request.id == id
        else { return }
        scheduler.finish(id)
        live[slot] = nil
        statistics.cancelledRequestCount += 1
        publish()  // Before the caller learns of the end, so that it finds it counted.
        var event = GenerationEvent()
        event.finishReason = .cancelled
        _ = request.sink.receive(event)
    }

    /// Gives the device as many steps as it takes at once.
    private mutating func supplyDevice() {
        while failure == nil, !isClosing, submitted - completed < depth, submitNext() {}
    }

    /// Schedules a step and gives it to the device; false if there is nothing to compute.
    private mutating func submitNext() -> Bool {
        let place = submitted % (depth + 1)
        guard scheduler.schedule(into: &steps[place]) else {
            completionTime = nil
            return false
        }
        do {
            try builder.fill(records[place], steps[place], scheduler)
            if let time = completionTime {
                statistics.criticalSeconds += (ContinuousClock.now - time).seconds
                statistics.criticalStepCount += 1
                completionTime = nil
            }
            submissionTimes[place] = ContinuousClock.now
            if observer != nil {
                let time = (submissionTimes[place] - startTime).seconds
                traces[place] = StepTrace(steps[place], scheduler, at: time)
            }
            try executor.submit(records[place], outputs: outputs[place], completion: onCompletion)
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
        let (now, place) = (ContinuousClock.now, completed % (depth + 1))
        let stepSeconds = (now - max(lastCompletion, submissionTimes[place])).seconds
        (completionTime, lastCompletion) = (now, now)
        completed += 1
        if let error, failure == nil { stop(error) }
        do {
            if failure != nil {
                try scheduler.abandon(steps[place])
                return
            }
            if steps[place].needsHost { drawOnHost(place) }
            failNonFinite(place)
            scheduler.settlesLater = true
            try scheduler.complete(
                steps[place], tokens: outputs[place].tokens, status: outputs[place].status,
                events: &events)
        } catch {
            let cause = error as? MartletError
            return stop(
                cause ?? MartletError(.internalError, "a step has no results", cause: error))
        }
        if steps[place].needsHost { advanceSearches(place) }
        supplyDevice()
        // The next step is on its way: now there is time for those that ended, and for pages of the step behind.
        scheduler.settlesLater = false
        scheduler.settle()
        scheduler.takePagesAhead()
        guard failure == nil else { return }
        count(steps[place], outputs[place])
        statistics.stepSeconds.add(stepSeconds)
        if let observer, traces[place].number == steps[place].number {
            traces[place].completed = (now - startTime).seconds
            traces[place].deviceSeconds = outputs[place].deviceSeconds
            observer(traces[place])
        }
        deliver(place)
    }

    /// The device failed: all requests end with this cause, later ones are refused with it.
    private mutating func stop(_ error: MartletError) {
        failure = MartletError(
            .device, "the engine stopped after a device error",
            mend: "Load the engine anew", context: error.context, cause: error)
        shared.fail(failure)
        statistics.failedRequestCount += live.count { $0 != nil }
        publish()
        endAll(error)
    }

    private mutating func endAll(_ error: MartletError) {
        scheduler.settlesLater = false
        scheduler.settle()
        scheduler.finishAll()
        for request in live { request?.sink.fail(error) }
        for slot in live.indices { live[slot] = nil }
    }

    private mutating func count(_ step: ScheduledStep, _ results: StepOutputs) {
        statistics.stepCount += 1
        statistics.tokenCount += step.tokenCount
        for item in step.items where !item.isPadding {
            // An answer's token comes after a drawn one; runs are prompts, or resumed.
            if item.outputIndex == 0 || item.range.count > 1 {
                statistics.prefillTokenCount += item.range.count
            } else {
                statistics.decodeTokenCount += item.range.count
            }
        }
        statistics.largestBatch = max(statistics.largestBatch, step.items.count)
        statistics.stepRequests.add(Double(step.items.count))
        statistics.deviceSeconds += results.deviceSeconds
        statistics.kernelCount += results.kernelCount
        statistics.launchCount += results.launchCount
        // What a token of a long run takes is what computing it again would.
        if step.tokenCount > 2 * step.items.count, results.deviceSeconds > 0 {
            let measured = results.deviceSeconds / Double(step.tokenCount)
            scheduler.preemptionCost.tokenSeconds +=
                (measured - scheduler.preemptionCost.tokenSeconds) / 4
        }
    }

    mutating func publish() {
        let counts = scheduler.counts
        statistics.waitingCount = counts.waiting
        statistics.activeCount = counts.active
        statistics.freePageCount = counts.freePages
        statistics.cachedPageCount = scheduler.pool.cachedCount
        statistics.reusedTokenCount = scheduler.reusedTokenCount
        statistics.preemptionCount = scheduler.preemptionCount
        statistics.asideCount = scheduler.asideCount
        statistics.swapCount = scheduler.swapCount
        shared.publish(statistics)
    }
}
