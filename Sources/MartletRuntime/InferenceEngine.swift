// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
import Synchronization

/// Facts that the engine's thread shares with callers.
final class EngineShared: Sendable {
    private struct State {
        var statistics = EngineStatistics()
        var failure: MartletError?
        var nextID: UInt64 = 0
        var isClosed = false
        /// Requests posted that the engine's thread has not taken up.
        var postedCount = 0
    }
    private let state = Mutex(State())
    /// Most requests that run at once.
    private let rowCount: Int

    init(rowCount: Int) { self.rowCount = rowCount }

    func publish(_ statistics: EngineStatistics) { state.withLock { $0.statistics = statistics } }
    func fail(_ error: MartletError?) { state.withLock { $0.failure = error } }
    var statistics: EngineStatistics { state.withLock { $0.statistics } }

    /// Names requests and posts their messages in one piece, so that none can follow the shutdown.
    ///
    /// - Parameters:
    ///   - count: Requests.
    ///   - queueLimit: Most that may wait for a row, these excepted; nil for any number.
    ///   - messages: The messages, one per name.
    /// - Throws: `MartletError` when the engine takes no more requests; nothing was posted then.
    func post(
        _ count: Int, queueLimit: Int? = nil, to mailbox: Mailbox<EngineMessage>,
        _ messages: ([RequestID]) -> [EngineMessage]
    ) throws {
        try state.withLock { state in
            if let failure = state.failure { throw failure }
            if state.isClosed { throw MartletError(.cancelled, "the engine was shut down") }
            if let queueLimit {
                let counts = state.statistics
                try Scheduler.checkQueue(
                    counts.activeCount + counts.waitingCount + state.postedCount - rowCount,
                    limit: queueLimit)
            }
            let ids = (0..<count).map { RequestID(state.nextID + 1 + UInt64($0)) }
            state.nextID += UInt64(count)
            state.postedCount += count
            mailbox.send(messages(ids))
        }
    }

    /// Takes note that the engine's thread has taken up a request, and how many wait now.
    func noteSubmission(waiting: Int) {
        state.withLock {
            $0.postedCount -= 1
            $0.statistics.waitingCount = waiting
        }
    }

    /// Posts the last message.
    func close(_ mailbox: Mailbox<EngineMessage>) {
        state.withLock {
            if !$0.isClosed { mailbox.send(.shutdown) }
            $0.isClosed = true
        }
    }
}

/// Serves requests on one device: any number at once, batched step by step.
///
/// One thread owns scheduler and step loop; callers send messages. Results of a request do not
/// depend on what else runs. After a device error all requests have failed with that error, and new
/// ones are refused with it.
package final class InferenceEngine: Sendable {
    /// How an engine runs.
    package struct Options: Sendable {
        /// Steps in flight: 1 waits for each step's tokens, 2 keeps the device busy.
        package var stepsInFlight = 2
        /// Which waiting requests may start.
        package var policy = SchedulingPolicy.guaranteedNoEvict
        /// Whether a prompt's beginning that is in the arena is not computed again.
        package var reusesPrefixes = true
        /// What becomes of the pages of a request that is paused.
        package var preemption = PreemptionMode.automatic
        /// Most requests for streams that wait for a row of the batch; more are refused.
        ///
        /// Batches wait in any number.
        package var queueLimit = 4096
        /// Events that a stream holds for its reader before its request pauses.
        package var streamCapacity = 256
        /// Bytes per second to the host and back, by which pausing is priced.
        package var hostBytesPerSecond = 10e9
        /// P of the plan.
        package var positionPlanes = 1
        /// Entry point that generates.
        package var entryPoint = 0
        /// Two steps in flight, no eviction.
        package init() {}
    }

    private let mailbox = Mailbox<EngineMessage>()
    private let shared: EngineShared
    /// A scheduler that never runs: answers whether a request can.
    private let limits: Scheduler
    private let vocabularySize: Int
    private let decodesText: Bool
    private let queueLimit: Int
    private let streamCapacity: Int

    /// Starts the engine's thread.
    ///
    /// - Parameters:
    ///   - executor: The device with a loaded engine.
    ///   - decoding: Makes text of tokens; nil gives tokens only.
    ///   - options: How to run.
    /// - Throws: `MartletError` `.unsupported` if the executor's groups or the policy cannot be
    ///   served, or the engine has no logits.
    package init(
        executor: any PlanExecutor, decoding: (any TokenDecoding)? = nil,
        options: Options = Options()
    ) throws {
        shared = EngineShared(rowCount: executor.limits.maxRequests)
        vocabularySize = executor.vocabularySize
        decodesText = decoding != nil
        guard vocabularySize > 0 else {
            throw MartletError(.unsupported, "the engine has no logits, so it cannot generate")
        }
        var choices = SchedulerOptions()
        choices.policy = options.policy
        choices.stepsInFlight = max(1, min(options.stepsInFlight, executor.maxStepsInFlight))
        choices.reusesPrefixes = options.reusesPrefixes
        choices.preemption = options.preemption
        choices.hostPageCount = executor.hostPageCount
        let pageBytes = executor.kvGroups.map(\.bytesPerBlock).max() ?? 0
        choices.preemptionCost.pageSeconds = Double(pageBytes) / max(options.hostBytesPerSecond, 1)
        guard options.preemption != .swap || executor.hostPageCount > 0 else {
            throw MartletError(
                .unsupported, "this device has no room on the host for swapped pages",
                mend: "Pause requests by recompute, or give the device pages on the host")
        }
        let recordBytes =
            StepRecord.byteCount(for: executor, positionPlanes: options.positionPlanes)
            * (choices.stepsInFlight + 1)
        guard recordBytes <= MachineMemory.byteCount / 2 else {
            throw MartletError(
                .limitExceeded,
                "what steps of \(executor.limits.maxRequests) requests are told takes "
                    + "\(recordBytes >> 20) MiB of the host's memory, which has "
                    + "\(MachineMemory.byteCount >> 20)",
                mend: "Lower --max-batch-size, --max-num-tokens or --max-context",
                context: ["bytes": "\(recordBytes)"])
        }
        let streams = try RequestStreams(
            groups: executor.kvGroups, uses: executor.groupUses, entryPoint: options.entryPoint)
        limits = try Scheduler(
            limits: executor.limits, streams: streams, pageCount: executor.pageCount,
            stateSlotCount: executor.stateSlotCount, options: choices)
        queueLimit = options.queueLimit
        streamCapacity = options.streamCapacity
        let builder = StepBuilder(
            streams: streams, positionPlanes: options.positionPlanes,
            vocabularySize: executor.vocabularySize)
        let (scheduler, mailbox, shared) = (limits, self.mailbox, self.shared)
        let started = DetachedThread.start {
            var loop = StepLoop(
                executor: executor, decoding: decoding, scheduler: scheduler, builder: builder,
                mailbox: mailbox, shared: shared)
            loop.run()
        }
        guard started else {
            throw MartletError(.internalError, "the system gives no thread for the engine")
        }
    }

    deinit { shutdown() }

    /// Starts a request.
    ///
    /// - Returns: Its events; the stream throws if the device or a logit row fails.
    /// - Throws: `MartletError` `.invalidArgument` or `.limitExceeded` if it cannot run.
    package func generate(_ request: GenerationRequest) throws -> GenerationEvents {
        try check(request)
        let count = request.settings.answerCount
        var events: GenerationEvents?
        let mailbox = mailbox
        try shared.post(
            AnswerGroup.size(request.settings), queueLimit: queueLimit, to: mailbox
        ) { ids in
            let buffer = StreamBuffer(
                ids, answerCount: count, capacity: streamCapacity, mailbox: mailbox)
            events = GenerationEvents(buffer)
            return messages(request, ids, buffer)
        }
        guard let events else {
            throw MartletError(.internalError, "the request has no events")
        }
        return events
    }

    /// What starts a request: one message per answer that is drawn.
    private func messages(
        _ request: GenerationRequest, _ ids: [RequestID], _ sink: any GenerationSink
    ) -> [EngineMessage] {
        guard ids.count > 1 else { return ids.map { .submit($0, request, sink) } }
        let group = AnswerGroup(request, ids: ids, sink: sink, mailbox: mailbox)
        return ids.enumerated().map { index, id in
            .submit(
                id, AnswerGroup.member(request, index),
                AnswerGroup.Member(group: group, index: index))
        }
    }

    /// Runs requests to their ends and returns the answers in the same order.
    ///
    /// Blocks the calling thread: for tools, not for use within tasks.
    /// - Throws: `MartletError` for the first request that cannot run; none is started then.
    package func generateBatch(_ requests: [GenerationRequest]) throws -> [GenerationOutput] {
        let results = Mailbox<(Int, GenerationOutput)>()
        try run(requests) { index, _ in
            OutputCollector(
                index: index, answerCount: requests[index].settings.answerCount, mailbox: results)
        }
        var outputs = [GenerationOutput](repeating: GenerationOutput(), count: requests.count)
        var received: [(Int, GenerationOutput)] = []
        var count = 0
        while count < requests.count {
            results.receive(into: &received)
            for (index, output) in received { outputs[index] = output }
            count += received.count
        }
        return outputs
    }

    /// Starts requests whose events all go to one receiver; any number may wait.
    ///
    /// - Throws: `MartletError` for the first request that cannot run; none is started then.
    package func run(_ requests: [GenerationRequest], sink: any GenerationSink) throws {
        try run(requests) { _, _ in sink }
    }

    /// Starts requests that come at the same moment: the next step finds them all.
    ///
    /// - Parameters:
    ///   - queueLimit: Most that may wait for a row before them; nil for any number.
    ///   - sinks: Receiver of each request's events, by index and the names of the answers drawn for it.
    /// - Throws: `MartletError` for the first request that cannot run, `.limitExceeded` for a full
    ///   queue; none is started then.
    package func run(
        _ requests: [GenerationRequest], queueLimit: Int? = nil,
        sinks: (Int, [RequestID]) -> any GenerationSink
    ) throws {
        try check(requests)
        let sizes = requests.map { AnswerGroup.size($0.settings) }
        try shared.post(sizes.reduce(0, +), queueLimit: queueLimit, to: mailbox) { ids in
            var rest = ids[...]
            return requests.indices.flatMap { index in
                let own = Array(rest.prefix(sizes[index]))
                rest = rest.dropFirst(own.count)
                return messages(requests[index], own, sinks(index, own))
            }
        }
    }

    /// Ends a request early; its receiver gets a last event that says so.
    func cancel(_ id: RequestID) { mailbox.send(.cancel(id)) }

    /// From the next step on, says what steps compute; nil for no more.
    ///
    /// Calls come from the engine's thread: while one lasts, the device has one step at most.
    package func observe(_ observer: (@Sendable (StepTrace) -> Void)?) {
        mailbox.send(.observe(observer))
    }

    /// Checks that requests can run.
    ///
    /// - Throws: `MartletError` for the first one that cannot, which the context names as `request`.
    package func check(_ requests: [GenerationRequest]) throws {
        for (index, request) in requests.enumerated() {
            do { try check(request) } catch let error as MartletError {
                throw error.adding("request", "\(index)")
            }
        }
    }

    /// Counts up to the last completed step.
    package var statistics: EngineStatistics { shared.statistics }

    /// Ends all requests as cancelled and refuses new ones.
    ///
    /// The thread ends when the device has done the steps in flight.
    package func shutdown() {
        shared.close(mailbox)
    }

    private func check(_ request: GenerationRequest) throws {
        try request.validate(vocabularySize: vocabularySize)
        if !request.settings.stopStrings.isEmpty, !decodesText {
            throw MartletError(
                .invalidArgument, "stop strings need a tokenizer, but the engine runs without one",
                mend: "Use stop token ids")
        }
        _ = try limits.admissibleTokens(request)
        guard request.settings.beamCount == 1 || request.settings.maxTokens > 0 else {
            throw MartletError(
                .invalidArgument, "max tokens is 0, but a search with beams needs at least 1")
        }
    }
}
