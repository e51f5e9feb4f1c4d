// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import Synchronization

/// Keeps what an engine's steps did: as lines of a log, as a timeline, or both.
final class LoadRecorder: Sendable {
    private struct State {
        var lines: [String] = []
        var timeline = Timeline()
        /// When the first step was submitted, and its number.
        var first: (time: Double, number: Int)?
        /// When the newest was completed.
        var previous = 0.0
    }

    private let policy: SchedulingPolicy
    private let keepsLog: Bool
    private let keepsTimeline: Bool
    private let state = Mutex(State())

    init(policy: SchedulingPolicy, keepsLog: Bool, keepsTimeline: Bool) {
        self.policy = policy
        self.keepsLog = keepsLog
        self.keepsTimeline = keepsTimeline
    }

    /// Whether anything is kept.
    var isNeeded: Bool { keepsLog || keepsTimeline }

    /// Adds a step.
    func add(_ trace: StepTrace) {
        state.withLock { state in
            let first = state.first ?? (trace.submitted, trace.number)
            state.first = first
            if keepsLog {
                var counted = trace
                counted.number -= first.number
                let json = counted.json(
                    policy: policy.rawValue, start: first.time, previous: state.previous)
                state.lines.append(json.serialized())
            }
            state.previous = trace.completed
            if keepsTimeline { state.timeline.add(trace) }
        }
    }

    /// The log.
    var lines: [String] { state.withLock { $0.lines } }
    /// The timeline.
    var timeline: Timeline { state.withLock { $0.timeline } }
}
