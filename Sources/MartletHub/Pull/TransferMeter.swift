// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Measures a transfer's rate over the last seconds and reports it at most ten times a second.
package final class TransferMeter: Sendable {
    private struct State {
        var samples: [(time: ContinuousClock.Instant, byteCount: Int)] = []
        var lastReport: ContinuousClock.Instant?
    }

    private static let window = Duration.seconds(4)
    private static let interval = Duration.milliseconds(100)

    private let total: Int?
    private let observe: PullObserver
    private let state = Mutex(State())

    /// A meter for a transfer of some bytes.
    package init(total: Int?, observe: @escaping PullObserver) {
        self.total = total
        self.observe = observe
    }

    /// Notes where the transfer starts; bytes of earlier runs do not count for the rate.
    package func start(at byteCount: Int) {
        state.withLock { $0 = State() }
        advance(to: byteCount)
    }

    /// Notes how many bytes there are now.
    package func advance(to byteCount: Int) {
        let now = ContinuousClock.now
        let progress: TransferProgress? = state.withLock { state in
            if let last = state.samples.last, byteCount < last.byteCount { state.samples = [] }
            let isEnd = byteCount == total
            if let last = state.lastReport, now - last < Self.interval, !isEnd { return nil }
            state.lastReport = now
            state.samples.append((now, byteCount))
            while let first = state.samples.first, state.samples.count > 2,
                now - first.time > Self.window
            {
                state.samples.removeFirst()
            }
            var progress = TransferProgress(
                byteCount: byteCount, totalByteCount: total, bytesPerSecond: 0, secondsLeft: nil)
            if let first = state.samples.first, now > first.time {
                let seconds = (now - first.time) / .seconds(1)
                progress.bytesPerSecond = Double(byteCount - first.byteCount) / seconds
                if let total, progress.bytesPerSecond > 0 {
                    progress.secondsLeft = Double(total - byteCount) / progress.bytesPerSecond
                }
            }
            return progress
        }
        if let progress { observe(.progress(progress)) }
    }
}
