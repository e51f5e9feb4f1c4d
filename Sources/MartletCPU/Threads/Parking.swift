// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import Synchronization

/// Waiting for a counter to change: spin, then yield, then sleep; an idle thread costs nothing.
///
/// `@unchecked Sendable`: mutex and condition are made for sharing, the rest is atomic.
final class Parking: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let sleepers = Atomic<Int>(0)

    init() {
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        condition.initialize(to: pthread_cond_t())
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Returns once the counter differs from a value.
    func wait(_ counter: borrowing Atomic<Int>, while value: Int) {
        // About 10 us of plain loads cover a barrier, 40 us of yields the gap between steps. Longer
        // waits mean that another process holds a core: sleeping lets the late thread move to ours.
        for _ in 0..<20_000 where counter.load(ordering: .acquiring) != value { return }
        for _ in 0..<40 {
            sched_yield()
            for _ in 0..<1000 where counter.load(ordering: .acquiring) != value { return }
        }
        pthread_mutex_lock(mutex)
        // Sequential consistency pairs this with `wake`: either the waker sees the sleeper, or the
        // sleeper sees the new value.
        sleepers.add(1, ordering: .sequentiallyConsistent)
        while counter.load(ordering: .sequentiallyConsistent) == value {
            pthread_cond_wait(condition, mutex)
        }
        sleepers.subtract(1, ordering: .sequentiallyConsistent)
        pthread_mutex_unlock(mutex)
    }

    /// Wakes sleepers after a counter was changed with sequential consistency.
    func wake() {
        guard sleepers.load(ordering: .sequentiallyConsistent) > 0 else { return }
        pthread_mutex_lock(mutex)
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }
}

/// A thread that runs one function and can be joined.
///
/// `@unchecked Sendable`: the handle is set once, before the owner sees it.
final class JoinableThread: @unchecked Sendable {
    private var handle = pthread_t()
    private let started: Bool

    /// Starts a thread with 4 MiB of stack.
    init(_ body: @escaping @Sendable () -> Void) {
        final class Box {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        pthread_attr_setstacksize(&attributes, 4 << 20)
        let box = Unmanaged.passRetained(Box(body))
        let status = pthread_create(
            &handle, &attributes,
            { argument in
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, box.toOpaque())
        pthread_attr_destroy(&attributes)
        started = status == 0
        if !started { box.release() }
    }

    /// Whether the system gave a thread.
    var isRunning: Bool { started }

    /// Waits for the end; called on the thread itself it lets go instead.
    func join() {
        guard started else { return }
        if pthread_equal(pthread_self(), handle) != 0 {
            pthread_detach(handle)
        } else {
            pthread_join(handle, nil)
        }
    }
}
