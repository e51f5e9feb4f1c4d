// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Which request held which slot of the batch in which steps, and what it was computed for.
///
/// A request takes the lowest free slot and keeps it until it ends or is paused.
package struct Timeline: Sendable {
    /// Steps in a row in which a request's row was of one kind.
    package struct Span: Sendable, Hashable {
        /// Request.
        package var request: RequestID
        /// Slot of the batch, counted from 0.
        package var slot: Int
        /// What its rows were for.
        package var work: StepTrace.Work
        /// Steps, counted from the first that was added.
        package var steps: Range<Int>
    }

    /// A request that gave up its slot to go on later.
    package struct Pause: Sendable, Hashable {
        /// Request.
        package var request: RequestID
        /// The slot that it left.
        package var slot: Int
        /// First step without it.
        package var step: Int
    }

    /// In order of their first steps.
    package private(set) var spans: [Span] = []
    /// In the order in which requests came back.
    package private(set) var pauses: [Pause] = []
    /// Steps added.
    package private(set) var stepCount = 0
    /// Slots that were held at any time.
    package private(set) var slotCount = 0

    private var firstNumber: Int?
    private var slots: [RequestID: Int] = [:]
    private var occupied: [Bool] = []
    /// The newest span of each slot.
    private var newest: [Int] = []
    /// Slots that requests left, and when.
    private var left: [RequestID: Pause] = [:]

    /// An empty timeline.
    package init() {}

    /// Adds a step; steps come in order.
    package mutating func add(_ trace: StepTrace) {
        let first = firstNumber ?? trace.number
        firstNumber = first
        let step = trace.number - first
        stepCount = step + 1
        let running = Set(trace.running)
        for (request, slot) in slots where !running.contains(request) {
            slots[request] = nil
            occupied[slot] = false
            let end = newest[slot] < spans.count ? spans[newest[slot]].steps.upperBound : step
            left[request] = Pause(request: request, slot: slot, step: end)
        }
        for row in trace.rows {
            let slot = slots[row.request] ?? take(row.request)
            let last = newest[slot]
            if last < spans.count, spans[last].request == row.request, spans[last].work == row.work,
                spans[last].steps.upperBound == step
            {
                spans[last].steps = spans[last].steps.lowerBound..<step + 1
            } else {
                newest[slot] = spans.count
                spans.append(
                    Span(request: row.request, slot: slot, work: row.work, steps: step..<step + 1))
            }
        }
    }

    private mutating func take(_ request: RequestID) -> Int {
        // Who comes back had been paused.
        if let pause = left.removeValue(forKey: request) { pauses.append(pause) }
        let slot = occupied.firstIndex(of: false) ?? occupied.count
        if slot == occupied.count {
            occupied.append(true)
            newest.append(Int.max)
        }
        occupied[slot] = true
        slots[request] = slot
        slotCount = occupied.count
        return slot
    }
}
