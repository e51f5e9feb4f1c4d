// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Hands out the numbers from 0 up, each once, to any thread.
final class Counter: Sendable {
    private let value = Atomic<Int>(0)

    /// The next number.
    func next() -> Int { value.wrappingAdd(1, ordering: .relaxed).oldValue }
}
