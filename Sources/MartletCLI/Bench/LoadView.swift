// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import Synchronization

/// What the engine does at the moment, drawn on the terminal four times a second.
final class LoadView: Sendable {
    private struct State {
        var trace = StepTrace()
        /// Answer tokens so far.
        var tokens = 0
        /// Answer tokens at the last drawing, and the rates of the last ones.
        var drawnTokens = 0
        var rates: [Double] = []
        var isDrawn = false
        var isStopped = false
    }

    private static let interval = Duration.milliseconds(250)
    private static let height = 4

    private let policy: SchedulingPolicy
    private let requestCount: Int
    private let rowCount: Int
    private let began = ContinuousClock.now
    private let state = Mutex(State())

    init(policy: SchedulingPolicy, requestCount: Int, rows: Int) {
        self.policy = policy
        self.requestCount = requestCount
        rowCount = rows
    }

    /// Takes note of a step.
    func add(_ trace: StepTrace) {
        state.withLock { state in
            state.trace = trace
            state.tokens += trace.drawnCount
        }
    }

    /// Draws until `stop`.
    ///
    /// - Parameter finished: How many requests have been answered.
    func start(finished: @escaping @Sendable () -> Int) {
        Task.detached { [self] in
            var last = ContinuousClock.now
            while true {
                try? await Task.sleep(for: Self.interval)
                let now = ContinuousClock.now
                let isStopped = state.withLock { state in
                    guard !state.isStopped else { return true }
                    draw(&state, finished: finished(), seconds: (now - last).seconds)
                    return false
                }
                if isStopped { return }
                last = now
            }
        }
    }

    /// Removes the view.
    func stop() {
        state.withLock { state in
            state.isStopped = true
            if state.isDrawn { Console.status("\u{1b}[\(Self.height)A\u{1b}[J") }
        }
    }

    private func draw(_ state: inout State, finished: Int, seconds: Double) {
        let rate = Double(state.tokens - state.drawnTokens) / max(seconds, 1e-9)
        state.drawnTokens = state.tokens
        state.rates = state.rates.suffix(39) + [rate]
        let trace = state.trace
        let elapsed = Format.decimal((ContinuousClock.now - began).seconds, 0)
        let lines = [
            "\(policy.rawValue)  \(Self.bar(finished, requestCount)) \(finished) of "
                + "\(requestCount) requests, \(elapsed) s",
            "batch   \(Self.bar(trace.rows.count, rowCount)) \(trace.rows.count) of \(rowCount), "
                + "queue \(trace.waitingCount), pauses \(trace.preemptionCount)",
            "blocks  \(Self.bar(trace.usedPageCount, trace.pageCount)) \(trace.usedPageCount) of "
                + "\(trace.pageCount), cached \(trace.cachedPageCount)",
            "answers \(Format.decimal(rate, 0)) tokens/s \(Self.curve(state.rates))",
        ]
        let up = state.isDrawn ? "\u{1b}[\(Self.height)A" : ""
        // A narrow terminal cuts lines instead of wrapping them, so that there are always as many.
        Console.status(
            up + "\u{1b}[?7l" + lines.map { "\r\u{1b}[K" + $0 + "\n" }.joined() + "\u{1b}[?7h")
        state.isDrawn = true
    }

    private static func bar(_ part: Int, _ whole: Int) -> String {
        let length = whole > 0 ? min(max(part, 0), whole) * 24 / whole : 0
        return "[" + String(repeating: "#", count: length)
            + String(repeating: ".", count: 24 - length) + "]"
    }

    private static func curve(_ values: [Double]) -> String {
        let most = max(values.max() ?? 0, 1)
        let levels = Array("▁▂▃▄▅▆▇█")
        return String(values.map { levels[min(max(Int($0 / most * 7.99), 0), 7)] })
    }
}
