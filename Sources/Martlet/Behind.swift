// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Work of a loop that runs one turn behind it, on another thread.
struct Behind {
    private var last: Concurrently<Void>?

    /// Starts a turn's work once that of the turn before has ended.
    ///
    /// - Throws: What that threw.
    mutating func run(_ body: @escaping @Sendable () throws -> Void) throws {
        try finish()
        last = Concurrently(body)
    }

    /// Waits for the last turn's work.
    ///
    /// - Throws: What it threw.
    mutating func finish() throws {
        defer { last = nil }
        try last?.value()
    }
}
