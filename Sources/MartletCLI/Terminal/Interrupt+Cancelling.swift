// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Synchronization

extension Interrupt {
    private static let running = Mutex<(@Sendable () -> Void)?>(nil)

    /// Runs work that tidies up where its task is cancelled; a signal that ends the program does so.
    ///
    /// - Throws: What the work throws.
    static func cancelling<Result: Sendable>(
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        let task = Task { try await work() }
        let ended = DispatchSemaphore(value: 0)
        running.withLock { running in
            running = {
                task.cancel()
                _ = ended.wait(timeout: .now() + 5)
            }
        }
        let result = await task.result
        ended.signal()
        // Whoever takes the closure out goes on; where that is the signal the program ends there.
        while taken() == nil { try? await Task.sleep(for: .seconds(1)) }
        return try result.get()
    }

    /// Cancels what runs and waits for its end, five seconds at most.
    static func cancelRunning() { taken()?() }

    private static func taken() -> (@Sendable () -> Void)? {
        running.withLock { running in
            defer { running = nil }
            return running
        }
    }
}
