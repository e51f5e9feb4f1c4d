// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Ends a load early, from any thread: what runs is cancelled, and what has not come does not come.
public final class LoadStop: Sendable {
    private struct State {
        var isRequested = false
        var wakes: [Int: @Sendable () -> Void] = [:]
        var added = 0
    }

    private let state = Mutex(State())

    /// A stop that nobody has asked for.
    public init() {}

    /// Whether the load is to end.
    public var isRequested: Bool { state.withLock { $0.isRequested } }

    /// Ends the loads that run with it, and each one that is given this stop later.
    public func request() {
        let wakes = state.withLock { state in
            state.isRequested = true
            return state.wakes
        }
        for wake in wakes.values { wake() }
    }

    /// Runs a load, which `wake` wakes where it waits.
    func waking<Result>(_ wake: @escaping @Sendable () -> Void, _ load: () throws -> Result)
        rethrows -> Result
    {
        let number = state.withLock { state in
            state.added += 1
            state.wakes[state.added] = wake
            return state.added
        }
        defer { state.withLock { _ = $0.wakes.removeValue(forKey: number) } }
        return try load()
    }
}
