// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

extension InferenceEngine {
    /// Runs a load to its end: requests come when the plan says, whatever the engine has left to do.
    ///
    /// Blocks the calling thread. Requests that the queue refuses, or that fail, are records too.
    /// - Parameter stop: Ends it early; what was not answered by then counts as cancelled.
    /// - Returns: One record a request in the plan's order, and the seconds that it took in all.
    /// - Throws: `MartletError` for the first request that cannot run; none is started then.
    package func run(
        _ plan: LoadPlan, stop: LoadStop = LoadStop()
    ) throws -> (records: [LoadRecord], duration: Double) {
        do { try check(plan.entries.map(\.request)) } catch let error as MartletError {
            throw Self.placed(error, plan)
        }
        let done = Mailbox<LoadRecord?>()
        return try stop.waking({ done.send(nil) }) { try run(plan, stop, done) }
    }

    private func run(
        _ plan: LoadPlan, _ stop: LoadStop, _ done: Mailbox<LoadRecord?>
    ) throws -> (records: [LoadRecord], duration: Double) {
        var records = plan.entries.indices.map {
            LoadRecord(index: $0, promptCount: plan.entries[$0].request.prompt.count)
        }
        var received: [LoadRecord?] = []
        var ended = 0
        /// Waits until so few requests are open, or somebody stops the load.
        func collect(atMost open: Int, of sent: Int, unless isStopped: () -> Bool) {
            while sent - ended > open, !isStopped() {
                done.receive(into: &received)
                for case let record? in received {
                    records[record.index] = record
                    ended += 1
                }
            }
        }
        let start = ContinuousClock.now
        var next = 0
        var all: [LoadSink] = []
        while next < plan.entries.count {
            let group = Self.group(plan, from: next)
            var arrival = start + Self.delay(plan.entries[next].arrival)
            if let most = plan.concurrency {
                collect(atMost: max(most, 1) - 1, of: next) { stop.isRequested }
                arrival = ContinuousClock.now
            } else {
                Self.sleep(until: arrival) { stop.isRequested }
            }
            if stop.isRequested { break }
            let sinks = group.map {
                LoadSink(
                    records[$0], arrival: arrival,
                    answerCount: plan.entries[$0].request.settings.answerCount,
                    keepsTokens: plan.keepsTokens,
                    cancelsAfter: plan.entries[$0].cancelsAfter, done)
            }
            do {
                try run(
                    plan.entries[group].map(\.request), queueLimit: plan.queueLimit,
                    sinks: { index, ids in
                        sinks[index].cancel = { [weak self] in for id in ids { self?.cancel(id) } }
                        return sinks[index]
                    })
                for sink in sinks where sink.cancelsAfter == 0 { sink.cancel() }
            } catch let error as MartletError {
                for sink in sinks { sink.fail(error) }
            }
            all += sinks
            next = group.upperBound
        }
        collect(atMost: 0, of: next) { stop.isRequested }
        if stop.isRequested {
            for sink in all { sink.cancel() }
            collect(atMost: 0, of: next) { false }
            for index in next..<records.count { records[index].isCancelled = true }
        }
        return (records, (ContinuousClock.now - start).seconds)
    }

    /// A request's failure with its place in the file, where the request is what is wrong.
    private static func placed(_ error: MartletError, _ plan: LoadPlan) -> MartletError {
        let setting = error.context["setting"]
        // Other settings are those of all requests.
        guard setting == nil || setting == "min tokens",
            let index = error.context["request"].flatMap({ Int($0) }),
            plan.entries.indices.contains(index), let place = plan.entries[index].place
        else { return error }
        let placed = error.placed(at: place)
        guard error.context["index"] != nil else { return placed }
        return placed.mending("Give token ids of the model's vocabulary")
    }

    /// Time to an arrival: none to what is no time, and decades where a duration would overflow.
    private static func delay(_ arrival: Double) -> Duration {
        let seconds: Double = arrival > 0 ? min(arrival, 1e9) : 0
        return .seconds(seconds)
    }

    /// Requests that come at the same moment; one at a time where the queue may refuse each.
    private static func group(_ plan: LoadPlan, from first: Int) -> Range<Int> {
        var end = first + 1
        guard plan.concurrency == nil, plan.queueLimit == nil else { return first..<end }
        while end < plan.entries.count, plan.entries[end].arrival == plan.entries[first].arrival {
            end += 1
        }
        return first..<end
    }

    private static func sleep(
        until time: ContinuousClock.Instant, unless isStopped: () -> Bool
    ) {
        while case let rest = (time - ContinuousClock.now).seconds, rest > 0, !isStopped() {
            usleep(UInt32(min(max(rest * 1e6, 1), 1e5)))
        }
    }
}

/// Takes the times of one request's tokens.
///
/// `@unchecked Sendable`: only the engine's thread calls it, until it posts the record; where the
/// engine refuses the request, only the caller does.
private final class LoadSink: GenerationSink, @unchecked Sendable {
    private let arrival: ContinuousClock.Instant
    private let keepsTokens: Bool
    let cancelsAfter: Int?
    /// Ends the request; set before the engine knows the sink.
    var cancel: @Sendable () -> Void = {}
    /// When each answer's newest token came, and the tokens, where they are kept.
    private var last: [ContinuousClock.Instant?]
    private var tokens: [[Int32]]
    private var openCount: Int
    private var record: LoadRecord
    private let done: Mailbox<LoadRecord?>

    init(
        _ record: LoadRecord, arrival: ContinuousClock.Instant, answerCount: Int, keepsTokens: Bool,
        cancelsAfter: Int?, _ done: Mailbox<LoadRecord?>
    ) {
        self.record = record
        self.arrival = arrival
        openCount = answerCount
        last = [ContinuousClock.Instant?](repeating: nil, count: answerCount)
        tokens = [[Int32]](repeating: [], count: answerCount)
        self.keepsTokens = keepsTokens
        self.cancelsAfter = cancelsAfter
        self.done = done
    }

    func receive(_ event: GenerationEvent) -> Bool {
        let now = ContinuousClock.now
        if let token = event.token {
            if keepsTokens { tokens[event.choice].append(token) }
            if record.answerCount == 0 { record.firstToken = (now - arrival).seconds }
            if let before = last[event.choice] { record.gaps.append((now - before).seconds) }
            record.answerCount += 1
            last[event.choice] = now
            if record.answerCount == cancelsAfter { cancel() }
        }
        if let reason = event.finishReason {
            if reason == .cancelled { record.isCancelled = true }
            openCount -= 1
            if openCount == 0 { post(now) }
        }
        return true
    }

    func fail(_ error: MartletError) {
        record.hasFailed = true
        record.failure = "\(error)"
        post(ContinuousClock.now)
    }

    private func post(_ now: ContinuousClock.Instant) {
        record.tokens = tokens.flatMap { $0 }
        record.total = (now - arrival).seconds
        done.send(record)
    }
}
