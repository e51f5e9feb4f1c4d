// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletEngineFile

/// Assigns buffers to memory slots: values that are never alive together share one.
///
/// Lifetimes are known, sizes are not (they depend on T, B and O at load), so a buffer takes the
/// free slot whose size at nominal T, B, O is nearest to its own; a slot is as large as its largest
/// member when the plan is loaded.
package enum MemoryPlan {
    /// A buffer's first and last step.
    package struct Lifetime: Sendable {
        /// Step that writes it.
        package var first: Int
        /// Last step that reads it.
        package var last: Int

        /// Spans steps, both ends included.
        package init(first: Int, last: Int) {
            self.first = first
            self.last = last
        }
    }

    private static let nominal = Dimension.Values(
        tokens: 512, requests: 8, logitRows: 8, context: 2048)

    /// Slots for buffers, and how many there are.
    package static func assign(
        _ buffers: [PlanBuffer], _ lifetimes: [Lifetime]
    ) -> (slots: [Int], count: Int) {
        func size(_ buffer: PlanBuffer) -> Int {
            (buffer.rows.evaluate(nominal) ?? 0) * buffer.rowBytes
        }
        var slots = Array(repeating: 0, count: buffers.count)
        var sizes: [Int] = []
        var freeFrom: [Int] = []
        let order = buffers.indices.sorted {
            (lifetimes[$0].first, $0) < (lifetimes[$1].first, $1)
        }
        for index in order {
            let wanted = size(buffers[index])
            let free = sizes.indices.filter { freeFrom[$0] <= lifetimes[index].first }
            let best = free.min { abs(sizes[$0] - wanted) < abs(sizes[$1] - wanted) }
            if let best {
                slots[index] = best
                sizes[best] = max(sizes[best], wanted)
                freeFrom[best] = lifetimes[index].last + 1
            } else {
                slots[index] = sizes.count
                sizes.append(wanted)
                freeFrom.append(lifetimes[index].last + 1)
            }
        }
        return (slots, sizes.count)
    }
}
