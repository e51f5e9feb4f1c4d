// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Hands out 0, 1, 2, ... to any thread.
final class Counter: Sendable {
    private let value = Atomic<Int>(0)

    /// The next number.
    func next() -> Int { value.wrappingAdd(1, ordering: .relaxed).oldValue }
}
