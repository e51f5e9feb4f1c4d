// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension StepBuilder {
    /// Writes what differs from the record's step before, which had the same layout: tokens and places.
    ///
    /// Sections are added as `fillTokens`, `fillLogitRows` and `fillSampling` add them.
    func renewRows(_ record: StepRecord, _ step: ScheduledStep, _ states: States) throws {
        let count = step.items.count
        let source = try record.add(.tokenSource, count: count)
        let positions = try record.add(.positions, count: count * positionPlanes)
        _ = try record.add(.requestIndex, count: count)
        _ = try record.add(.queryStart, count: count + 1)
        _ = try record.add(.logitRows, count: count)
        _ = try record.add(.rowUse, UInt32.self, count: count)
        let parameters = try record.add(
            .samplingParameters, SamplingParameters.self, count: count)
        _ = try record.add(.stateSlot, count: count)
        _ = try record.add(.historyStart, count: count + 1)
        step.items.withUnsafeBufferPointer { items in
            for row in 0..<count {
                let position = items[row].range.lowerBound
                if let sourceRow = items[row].sourceRow {
                    source[row] = -1 - sourceRow
                } else {
                    source[row] = states[items[row].slot].tokens[position]
                }
                for plane in 0..<positionPlanes {
                    positions[plane * count + row] = Int32(truncatingIfNeeded: position)
                }
                parameters[row].outputPosition = UInt32(
                    truncatingIfNeeded: items[row].outputIndex)
            }
        }
    }
}
