// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Events between the kernels of one step under way, from which its plan steps' times are taken.
///
/// A kernel behind an event begins when the one in front of it has ended, so times include what kernels
/// otherwise hide in each other.
///
/// `@unchecked Sendable`: one owner at a time, as its slot.
final class StepMarks: @unchecked Sendable {
    private final class Mark {
        let event: CUDAEvent
        init(_ event: consuming CUDAEvent) { self.event = event }
    }

    private let device: CUDADevice
    /// Grow to what was asked for, then stay.
    private var marks: [Mark] = []
    /// Plan steps, in the order of the marks behind them.
    private var steps: [Int] = []

    init(_ device: CUDADevice) { self.device = device }

    /// Forgets the last run.
    func begin() { steps.removeAll(keepingCapacity: true) }

    /// Marks the end of a kernel of a plan step.
    func mark(_ step: Int, on stream: borrowing CUDAStream) throws(MartletError) {
        if marks.count == steps.count { marks.append(Mark(try CUDAEvent(device))) }
        try marks[steps.count].event.record(on: stream)
        steps.append(step)
    }

    /// Nanoseconds of each plan step, once all is done; nil where nothing was marked.
    func nanoseconds(
        since start: borrowing CUDAEvent, stepCount: Int
    ) throws(MartletError) -> [Int]? {
        guard !steps.isEmpty else { return nil }
        var nanoseconds = [Int](repeating: 0, count: stepCount)
        for (index, step) in steps.enumerated() {
            let seconds =
                index == 0
                ? try marks[0].event.seconds(since: start)
                : try marks[index].event.seconds(since: marks[index - 1].event)
            nanoseconds[step] += Int(seconds * 1e9)
        }
        return nanoseconds
    }
}
