// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// A thread that runs closures one after another, in the order they were given.
///
/// `@unchecked Sendable`: the queue is guarded by the mutex.
final class CompletionThread: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var waiting: [() -> Void] = []
    private var ends = false
    private var handle = pthread_t()
    private(set) var isRunning = false

    init() {
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        condition.initialize(to: pthread_cond_t())
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        waiting.reserveCapacity(4)
        // The thread keeps its own reference until it ends.
        let unmanaged = Unmanaged.passRetained(self)
        let status = pthread_create(
            &handle, nil,
            { argument in
                if let argument {
                    Unmanaged<CompletionThread>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }, unmanaged.toOpaque())
        isRunning = status == 0
        if !isRunning { unmanaged.release() }
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Runs a closure after those given before.
    func add(_ body: @escaping () -> Void) {
        pthread_mutex_lock(mutex)
        waiting.append(body)
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }

    /// Ends the thread after what was given; waits for it unless called on the thread itself.
    func stop() {
        guard isRunning else { return }
        pthread_mutex_lock(mutex)
        ends = true
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
        if pthread_equal(pthread_self(), handle) != 0 {
            pthread_detach(handle)
        } else {
            pthread_join(handle, nil)
        }
    }

    private func run() {
        while true {
            pthread_mutex_lock(mutex)
            while waiting.isEmpty, !ends { pthread_cond_wait(condition, mutex) }
            guard !waiting.isEmpty else {
                pthread_mutex_unlock(mutex)
                return
            }
            let body = waiting.removeFirst()
            pthread_mutex_unlock(mutex)
            body()
        }
    }
}
