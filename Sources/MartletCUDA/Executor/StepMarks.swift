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
    /// Plan steps, in the order of the marks behind them; a mark more stands in front of all.
    private var steps: [Int] = []

    init(_ device: CUDADevice) { self.device = device }

    /// Forgets the last run.
    func begin() { steps.removeAll(keepingCapacity: true) }

    /// Marks the beginning of a run.
    func start(on stream: borrowing CUDAStream) throws(MartletError) {
        try record(0, on: stream)
    }

    /// Marks the end of a kernel of a plan step.
    func mark(_ step: Int, on stream: borrowing CUDAStream) throws(MartletError) {
        try record(steps.count + 1, on: stream)
        steps.append(step)
    }

    private func record(_ index: Int, on stream: borrowing CUDAStream) throws(MartletError) {
        while marks.count <= index { marks.append(Mark(try CUDAEvent(device))) }
        try marks[index].event.record(on: stream)
    }

    /// Nanoseconds of each plan step, once all is done; nil where nothing was marked.
    func nanoseconds(stepCount: Int) throws(MartletError) -> [Int]? {
        guard !steps.isEmpty else { return nil }
        var nanoseconds = [Int](repeating: 0, count: stepCount)
        for (index, step) in steps.enumerated() {
            let seconds = try marks[index + 1].event.seconds(since: marks[index].event)
            nanoseconds[step] += Int(seconds * 1e9)
        }
        return nanoseconds
    }
}
