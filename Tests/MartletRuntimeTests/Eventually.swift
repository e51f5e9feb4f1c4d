// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Waits for what another thread does, a minute at most: other tests may keep every core busy.
///
/// - Returns: Whether it came to hold.
func eventually(_ holds: () -> Bool) async throws -> Bool {
    for _ in 0..<30_000 {
        if holds() { return true }
        try await Task.sleep(for: .milliseconds(2))
    }
    return holds()
}
