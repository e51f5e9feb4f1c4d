// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Times the steps of one run of a plan; one clock reading a step.
///
/// `@unchecked Sendable`: belongs to thread 0 of the team while it runs.
final class StepTimer: @unchecked Sendable {
    private(set) var nanoseconds: [Int]
    private let clock = ContinuousClock()
    private var last: ContinuousClock.Instant

    init(steps: Int) {
        nanoseconds = [Int](repeating: 0, count: steps)
        last = clock.now
    }

    func mark(_ step: Int) {
        let now = clock.now
        let elapsed = (now - last).components
        nanoseconds[step] +=
            Int(elapsed.seconds) * 1_000_000_000 + Int(elapsed.attoseconds / 1_000_000_000)
        last = now
    }
}
