// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Synchronization

/// A value that is computed beside other work, on a thread of its own.
final class Concurrently<Value: Sendable>: Sendable {
    private let group = DispatchGroup()
    private let result = Mutex<Result<Value, any Error>?>(nil)

    /// Starts.
    init(_ body: @escaping @Sendable () throws -> Value) {
        DispatchQueue.global().async(group: group) { self.set(Result { try body() }) }
    }

    private func set(_ value: Result<Value, any Error>) { result.withLock { $0 = value } }

    /// Throws what computing it threw, if that is known by now; does not wait.
    func checkNow() throws { if case .failure(let error) = result.withLock({ $0 }) { throw error } }

    /// Waits for the value.
    ///
    /// - Throws: What computing it threw.
    func value() throws -> Value {
        group.wait()
        guard let result = result.withLock({ $0 }) else { throw CancellationError() }
        return try result.get()
    }
}
