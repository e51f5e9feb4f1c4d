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
    }
    private let state = Mutex(State())

    func publish(_ statistics: EngineStatistics) { state.withLock { $0.statistics = statistics } }
    func fail(_ error: MartletError?) { state.withLock { $0.failure = error } }
    var statistics: EngineStatistics { state.withLock { $0.statistics } }

    /// Names requests and posts their messages in one piece, so that none can follow the shutdown.
    ///
    /// - Throws: `MartletError` when the engine takes no more requests; nothing was posted then.
    func post(
        _ count: Int, to mailbox: Mailbox<EngineMessage>,
        _ message: (Int, RequestID) -> EngineMessage
    ) throws {
        try state.withLock {
            if let failure = $0.failure { throw failure }
            if $0.isClosed { throw MartletError(.cancelled, "the engine was shut down") }
            for index in 0..<count {
                $0.nextID += 1
                mailbox.send(message(index, RequestID($0.nextID)))
            }
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

/// Events of one request as they happen.
///
/// Dropping it, or cancelling its task, ends the request.
package typealias GenerationStream = AsyncThrowingStream<GenerationEvent, any Error>

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
        /// P of the plan.
        package var positionPlanes = 1
        /// Entry point that generates.
        package var entryPoint = 0
        /// Two steps in flight, no eviction.
        package init() {}
    }

    private let mailbox = Mailbox<EngineMessage>()
    private let shared = EngineShared()
    /// A scheduler that never runs: answers whether a request can.
    private let limits: Scheduler
    private let vocabularySize: Int
    private let decodesText: Bool

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
        vocabularySize = executor.vocabularySize
        decodesText = decoding != nil
        guard vocabularySize > 0 else {
            throw MartletError(.unsupported, "the engine has no logits, so it cannot generate")
        }
        limits = try Scheduler(
            limits: executor.limits, groups: executor.kvGroups, pageCount: executor.pageCount,
            stateSlotCount: executor.stateSlotCount,
            stepsInFlight: max(1, min(options.stepsInFlight, executor.maxStepsInFlight)),
            policy: options.policy, reusesPrefixes: options.reusesPrefixes)
        let builder = StepBuilder(
            groups: executor.kvGroups, positionPlanes: options.positionPlanes,
            stream: options.entryPoint)
        let (scheduler, mailbox, shared) = (limits, self.mailbox, self.shared)
        let started = EngineThread.start {
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
    package func generate(_ request: GenerationRequest) throws -> GenerationStream {
        try check(request)
        let (stream, continuation) = GenerationStream.makeStream()
        let mailbox = mailbox
        try shared.post(1, to: mailbox) { _, id in
            continuation.onTermination = { reason in
                if case .cancelled = reason { mailbox.send(.cancel(id)) }
            }
            return .submit(id, request, StreamSink(continuation: continuation))
        }
        return stream
    }

    /// Runs requests to their ends and returns the answers in the same order.
    ///
    /// Blocks the calling thread: for tools, not for use within tasks.
    /// - Throws: `MartletError` for the first request that cannot run; none is started then.
    package func generateBatch(_ requests: [GenerationRequest]) throws -> [GenerationOutput] {
        for (index, request) in requests.enumerated() {
            do { try check(request) } catch let error as MartletError {
                throw error.adding("request", "\(index)")
            }
        }
        let results = Mailbox<(Int, GenerationOutput)>()
        try shared.post(requests.count, to: mailbox) { index, id in
            .submit(id, requests[index], OutputCollector(index: index, mailbox: results))
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
    }
}
