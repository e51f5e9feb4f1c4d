// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Measures the rate of all transfers of a pull over the last seconds and reports it at most ten
/// times a second.
package final class TransferMeter: Sendable {
    private struct State {
        var progress: TransferProgress
        var samples: [(time: ContinuousClock.Instant, byteCount: Int)] = []
        var lastReport: ContinuousClock.Instant?
    }

    private static let window = Duration.seconds(4)
    private static let interval = Duration.milliseconds(100)

    private let observe: PullObserver
    private let state: Mutex<State>

    /// A meter for some files.
    ///
    /// - Parameter total: Bytes there will be, if known.
    package init(total: Int?, fileCount: Int, observe: @escaping PullObserver) {
        self.observe = observe
        state = Mutex(
            State(
                progress: TransferProgress(
                    byteCount: 0, totalByteCount: total, fileCount: fileCount)))
    }

    /// Counts bytes that did not just arrive, such as those of earlier runs; negative takes back.
    package func skip(_ byteCount: Int) {
        guard byteCount != 0 else { return }
        report { state in
            state.progress.byteCount += byteCount
            state.samples = []
        }
    }

    /// Counts bytes that arrived.
    package func advance(_ byteCount: Int) {
        report { $0.progress.byteCount += byteCount }
    }

    /// Counts a file that is in its place.
    package func finishFile() {
        report { $0.progress.finishedFileCount += 1 }
    }

    private func report(_ change: (inout State) -> Void) {
        let now = ContinuousClock.now
        let progress: TransferProgress? = state.withLock { state in
            change(&state)
            let isEnd = state.progress.byteCount == state.progress.totalByteCount
            if let last = state.lastReport, now - last < Self.interval, !isEnd { return nil }
            state.lastReport = now
            state.samples.append((now, state.progress.byteCount))
            while let first = state.samples.first, state.samples.count > 2,
                now - first.time > Self.window
            {
                state.samples.removeFirst()
            }
            var progress = state.progress
            if let first = state.samples.first, now > first.time {
                let seconds = (now - first.time) / .seconds(1)
                progress.bytesPerSecond = Double(progress.byteCount - first.byteCount) / seconds
                if let total = progress.totalByteCount, progress.bytesPerSecond > 0 {
                    progress.secondsLeft =
                        Double(total - progress.byteCount) / progress.bytesPerSecond
                }
            }
            return progress
        }
        if let progress { observe(.progress(progress)) }
    }
}
