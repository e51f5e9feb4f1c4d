// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Threads that run one function together, with a barrier; the caller takes part as thread 0.
///
/// Work is shared statically by thread index, so results do not depend on timing. Waiting threads
/// spin shortly, then sleep: an idle team uses no CPU.
///
/// `@unchecked Sendable`: `run` holds a lock, so there is one job at a time.
package final class ThreadTeam: @unchecked Sendable {
    /// Threads, the caller included.
    package let count: Int
    private let state: TeamState
    private let threads: [JoinableThread]
    private let running = Mutex<Void>(())

    /// A team on all physical cores for packing weights.
    static let packing = ThreadTeam(threads: nil)

    /// Starts the team.
    ///
    /// - Parameter threads: Threads, the caller included; nil for one per available physical core.
    package init(threads: Int?) {
        let wanted = min(max(threads ?? CPUCores.physical.count, 1), 1024)
        let state = TeamState(wanted: wanted)
        var started: [JoinableThread] = []
        for index in 1..<max(wanted, 1) {
            let thread = JoinableThread { state.work(index) }
            guard thread.isRunning else { break }
            started.append(thread)
        }
        state.memberCount.store(started.count + 1, ordering: .sequentiallyConsistent)
        self.state = state
        self.threads = started
        count = started.count + 1
    }

    deinit {
        state.stops.store(true, ordering: .sequentiallyConsistent)
        state.jobs.add(1, ordering: .sequentiallyConsistent)
        state.parking.wake()
        for thread in threads { thread.join() }
    }

    /// Calls the function once on each thread with (thread, count) and returns when all are done.
    package func run(_ body: @Sendable (Int, Int) -> Void) {
        running.withLock { _ in
            if count == 1 {
                body(0, 1)
                return
            }
            withoutActuallyEscaping(body) { body in
                state.job = body
                state.jobs.add(1, ordering: .sequentiallyConsistent)
                state.parking.wake()
                body(0, count)
                state.barrier()
                state.job = nil
            }
        }
    }

    /// Waits until every thread of the team is here; only inside `run`, by all threads.
    package func barrier() {
        if count > 1 { state.barrier() }
    }
}

/// What the threads of a team share.
///
/// `@unchecked Sendable`: `job` is written before `jobs` grows and cleared after the last barrier.
private final class TeamState: @unchecked Sendable {
    let jobs = Atomic<Int>(0)
    let stops = Atomic<Bool>(false)
    let memberCount: Atomic<Int>
    let parking = Parking()
    var job: (@Sendable (Int, Int) -> Void)?
    private let arrivals = Atomic<Int>(0)
    private let generation = Atomic<Int>(0)

    init(wanted: Int) { memberCount = Atomic(wanted) }

    func work(_ index: Int) {
        var seen = 0
        while true {
            parking.wait(jobs, while: seen)
            seen += 1
            if stops.load(ordering: .sequentiallyConsistent) { return }
            job?(index, memberCount.load(ordering: .sequentiallyConsistent))
            barrier()
        }
    }

    func barrier() {
        let present = generation.load(ordering: .acquiring)
        let members = memberCount.load(ordering: .relaxed)
        if arrivals.add(1, ordering: .acquiringAndReleasing).newValue == members {
            arrivals.store(0, ordering: .relaxed)
            generation.add(1, ordering: .sequentiallyConsistent)
            parking.wake()
        } else {
            parking.wait(generation, while: present)
        }
    }
}
