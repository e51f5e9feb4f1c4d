// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Shows on a terminal how much of a known amount of work is done.
struct ProgressMeter {
    private let name: String
    private let total: Int
    private let width = 30

    /// A meter of so many equal parts.
    init(_ name: String, total: Int) {
        self.name = name
        self.total = max(1, total)
    }

    /// Draws the bar.
    ///
    /// - Parameter note: What to say behind it, such as a result so far.
    func show(_ done: Int, _ note: String = "") {
        guard Console.isInteractive else { return }
        let part = min(max(done, 0), total) * width / total
        let bar = String(repeating: "#", count: part) + String(repeating: ".", count: width - part)
        Console.status("\r\u{1b}[K\(name) [\(bar)] \(done)/\(total) \(note)")
    }

    /// Removes the bar.
    func clear() {
        if Console.isInteractive { Console.status("\r\u{1b}[K") }
    }
}
