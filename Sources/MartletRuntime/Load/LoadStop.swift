// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Ends a load early, from any thread: what runs is cancelled, and what has not come does not come.
public final class LoadStop: Sendable {
    private struct State {
        var isRequested = false
        var wake: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// A stop that nobody has asked for.
    public init() {}

    /// Whether the load is to end.
    public var isRequested: Bool { state.withLock { $0.isRequested } }

    /// Ends the load that runs, and each one that is given this stop later.
    public func request() {
        let wake = state.withLock { state in
            state.isRequested = true
            return state.wake
        }
        wake?()
    }

    /// Sets what wakes the load where it waits; nil behind its end.
    func onRequest(_ wake: (@Sendable () -> Void)?) { state.withLock { $0.wake = wake } }
}
