// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Which waiting requests may start.
public enum SchedulingPolicy: String, Sendable, Hashable, CaseIterable {
    /// One whose pages, prompt and whole answer, are there beside those of the running ones: none
    /// is ever paused.
    case guaranteedNoEvict
    /// As many as fit now; when pages run out one is paused, and goes on later.
    case maxUtilization
    /// A batch as `guaranteedNoEvict` would form it, but only when the batch before has ended:
    /// finished requests keep their rows, which are computed on until the slowest has finished.
    case `static`
    /// As `static`, but rows of finished requests are left out.
    case staticSkipping

    /// Whether requests start as whole batches only.
    var isStatic: Bool { self == .static || self == .staticSkipping }
}

/// What becomes of the pages of a request that is paused.
public enum PreemptionMode: String, Sendable, Hashable, CaseIterable {
    /// The cheaper of the two by `PreemptionCost`.
    case automatic
    /// They are dropped, and their tokens computed again.
    case recompute
    /// They are copied to the host and back, where the host has room.
    case swap
}

/// What pausing a request costs, in seconds.
package struct PreemptionCost: Sendable, Hashable {
    /// Computing a token again, within a long run.
    package var tokenSeconds: Double
    /// Copying a page to the host, or back.
    package var pageSeconds: Double

    /// Pairs the two prices.
    package init(tokenSeconds: Double = 1e-4, pageSeconds: Double = 1e-4) {
        self.tokenSeconds = tokenSeconds
        self.pageSeconds = pageSeconds
    }

    /// Whether copying so many pages out and back is cheaper than computing so many tokens again.
    package func prefersSwap(pages: Int, tokens: Int) -> Bool {
        2 * Double(pages) * pageSeconds < Double(tokens) * tokenSeconds
    }
}

/// How a scheduler chooses.
package struct SchedulerOptions: Sendable, Hashable {
    /// Which waiting requests may start.
    package var policy = SchedulingPolicy.guaranteedNoEvict
    /// Steps that may be scheduled and not completed, at least 1.
    package var stepsInFlight = 2
    /// Whether a prompt's beginning that is in the arena is not computed again.
    package var reusesPrefixes = true
    /// What becomes of the pages of a paused request.
    package var preemption = PreemptionMode.automatic
    /// What `automatic` weighs.
    package var preemptionCost = PreemptionCost()
    /// Pages of the host's arena; 0 if the device cannot swap.
    package var hostPageCount = 0
    /// Most requests that wait; more are refused.
    package var queueLimit = Int.max

    /// In-flight batching without eviction, two steps in flight.
    package init() {}
}
