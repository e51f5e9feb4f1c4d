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
    /// Blocks the calling thread.
    /// - Returns: One record a request in the plan's order, and the seconds that it took in all.
    /// - Throws: `MartletError` for the first request that cannot run.
    package func run(_ plan: LoadPlan) throws -> (records: [LoadRecord], duration: Double) {
        let done = Mailbox<LoadRecord>()
        var records = plan.entries.indices.map {
            LoadRecord(index: $0, promptCount: plan.entries[$0].request.prompt.count)
        }
        var received: [LoadRecord] = []
        var ended = 0
        func collect(atMost open: Int, of sent: Int) {
            while sent - ended > open {
                done.receive(into: &received)
                for record in received { records[record.index] = record }
                ended += received.count
            }
        }
        let start = ContinuousClock.now
        for (index, entry) in plan.entries.enumerated() {
            if let most = plan.concurrency { collect(atMost: most - 1, of: index) }
            Self.sleep(until: start + .seconds(entry.arrival))
            try run([entry.request], sink: LoadSink(records[index], done))
        }
        collect(atMost: 0, of: plan.entries.count)
        return (records, (ContinuousClock.now - start).seconds)
    }

    private static func sleep(until time: ContinuousClock.Instant) {
        while case let rest = (time - ContinuousClock.now).seconds, rest > 0 {
            usleep(UInt32(min(max(rest * 1e6, 1), 1e6)))
        }
    }
}

/// Takes the times of one request's tokens.
///
/// `@unchecked Sendable`: only the engine's thread calls it, until it posts the record.
private final class LoadSink: GenerationSink, @unchecked Sendable {
    private let start = ContinuousClock.now
    private var last = ContinuousClock.now
    private var record: LoadRecord
    private let done: Mailbox<LoadRecord>

    init(_ record: LoadRecord, _ done: Mailbox<LoadRecord>) {
        self.record = record
        self.done = done
    }

    func receive(_ event: GenerationEvent) -> Bool {
        let now = ContinuousClock.now
        if event.token != nil {
            if record.answerCount == 0 {
                record.firstToken = (now - start).seconds
            } else {
                record.gaps.append((now - last).seconds)
            }
            record.answerCount += 1
            last = now
        }
        if event.finishReason != nil { post(now) }
        return true
    }

    func fail(_ error: MartletError) {
        record.hasFailed = true
        post(ContinuousClock.now)
    }

    private func post(_ now: ContinuousClock.Instant) {
        record.total = (now - start).seconds
        done.send(record)
    }
}
