// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Shows on a terminal how far a build is.
final class BuildMeter: Sendable {
    private let shown = Mutex(-1)

    /// Draws a bar when the percentage has changed.
    func show(_ what: String, _ fraction: Double) {
        guard Console.isInteractive else { return }
        let percent = Int((min(max(fraction, 0), 1) * 100).rounded())
        let isNew = shown.withLock { last in
            defer { last = percent }
            return last != percent
        }
        guard isNew else { return }
        let width = 30
        let done = percent * width / 100
        let bar = String(repeating: "#", count: done) + String(repeating: ".", count: width - done)
        Console.status("\r\(what) [\(bar)] \(percent) %" + (percent == 100 ? "\r\u{1b}[K" : ""))
    }
}
