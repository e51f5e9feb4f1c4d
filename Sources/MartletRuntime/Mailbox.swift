// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif
import MartletCore
import Synchronization

/// Messages from many threads to one, which sleeps while there are none.
///
/// `@unchecked Sendable`: `messages` is touched under `lock` only.
package final class Mailbox<Message: Sendable>: @unchecked Sendable {
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let arrival: UnsafeMutablePointer<pthread_cond_t>
    private var messages: [Message] = []
    /// How many there are, for who looks without the lock.
    private let count = Atomic<Int>(0)

    /// An empty mailbox.
    package init() {
        lock = .allocate(capacity: 1)
        arrival = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        pthread_cond_init(arrival, nil)
    }

    deinit {
        pthread_cond_destroy(arrival)
        pthread_mutex_destroy(lock)
        arrival.deallocate()
        lock.deallocate()
    }

    /// Adds a message and wakes the reader.
    package func send(_ message: Message) {
        pthread_mutex_lock(lock)
        messages.append(message)
        count.store(messages.count, ordering: .releasing)
        pthread_cond_signal(arrival)
        pthread_mutex_unlock(lock)
    }

    /// Adds messages in one piece and wakes the reader.
    package func send(_ new: [Message]) {
        pthread_mutex_lock(lock)
        messages += new
        count.store(messages.count, ordering: .releasing)
        pthread_cond_signal(arrival)
        pthread_mutex_unlock(lock)
    }

    /// Waits for messages and swaps them with the given array, which is emptied first.
    ///
    /// - Parameter spin: How long to look for some before the thread sleeps.
    package func receive(into received: inout [Message], spin: Duration = .zero) {
        received.removeAll(keepingCapacity: true)
        if spin > .zero {
            _ = SpinWait.look(for: spin) { count.load(ordering: .acquiring) > 0 }
        }
        pthread_mutex_lock(lock)
        while messages.isEmpty { pthread_cond_wait(arrival, lock) }
        swap(&messages, &received)
        count.store(0, ordering: .relaxed)
        pthread_mutex_unlock(lock)
    }
}
