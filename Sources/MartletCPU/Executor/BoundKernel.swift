// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// One thread of a team, seen by a kernel.
struct Worker: Sendable {
    /// Which thread.
    let index: Int
    /// Threads in all.
    let count: Int

    /// This thread's part of `0 ..< total`, in whole units where there are enough of them.
    func share(of total: Int, unit: Int = 1) -> Range<Int> {
        let units = (total + unit - 1) / unit
        let first = units * index / count * unit
        let last = units * (index + 1) / count * unit
        return min(first, total)..<min(last, total)
    }
}

/// A plan step with all addresses resolved, ready to run any number of times.
///
/// Every thread of the team calls `run` for each phase, with a barrier after each phase.
protocol BoundKernel: AnyObject, Sendable {
    /// Phases with a barrier between them.
    var phaseCount: Int { get }
    /// Does this thread's part of a phase. Allocates nothing.
    func run(_ step: StepState, phase: Int, worker: Worker)
}
