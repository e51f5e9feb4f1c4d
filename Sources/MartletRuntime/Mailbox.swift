// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Messages from many threads to one, which sleeps while there are none.
///
/// `@unchecked Sendable`: `messages` is touched under `lock` only.
package final class Mailbox<Message: Sendable>: @unchecked Sendable {
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let arrival: UnsafeMutablePointer<pthread_cond_t>
    private var messages: [Message] = []

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
        pthread_cond_signal(arrival)
        pthread_mutex_unlock(lock)
    }

    /// Adds messages in one piece and wakes the reader.
    package func send(_ new: [Message]) {
        pthread_mutex_lock(lock)
        messages += new
        pthread_cond_signal(arrival)
        pthread_mutex_unlock(lock)
    }

    /// Waits for messages and swaps them with the given array, which is emptied first.
    package func receive(into received: inout [Message]) {
        received.removeAll(keepingCapacity: true)
        pthread_mutex_lock(lock)
        while messages.isEmpty { pthread_cond_wait(arrival, lock) }
        swap(&messages, &received)
        pthread_mutex_unlock(lock)
    }
}
