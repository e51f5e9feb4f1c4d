// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore

/// Writes scheduled steps into step records.
package struct StepBuilder: Sendable {
    /// KV groups, in the records' order.
    package let groups: [KVGroup]
    /// P.
    package let positionPlanes: Int
    /// Entry point that steps run.
    package let stream: Int

    /// Fixes what all steps share.
    ///
    /// - Parameters:
    ///   - groups: KV groups.
    ///   - positionPlanes: P; text has the same position in every plane.
    ///   - stream: Entry point index.
    package init(groups: [KVGroup], positionPlanes: Int = 1, stream: Int = 0) {
        self.groups = groups
        self.positionPlanes = max(positionPlanes, 1)
        self.stream = stream
    }

    /// Fills a record; to be called before the scheduler's next change.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if the step outgrows the record's memory.
    package func fill(_ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler) throws {
        record.begin(stream: stream, number: step.number, positionPlanes: positionPlanes)
        record.setCounts(
            tokens: step.tokenCount, requests: step.items.count, logitRows: step.logitRowCount)
        try fillTokens(record, step, scheduler)
        try fillLogitRows(record, step, scheduler)
        try fillSampling(record, step, scheduler)
        for (index, group) in groups.enumerated() {
            try fillGroup(record, step, scheduler, index: index, blockSize: group.blockSize)
        }
        if !step.blockOperations.isEmpty {
            let operations = try record.add(
                .blockOperations, BlockOperation.self, count: step.blockOperations.count)
            for (index, operation) in step.blockOperations.enumerated() {
                operations[index] = operation
            }
            record.setBlockOperationCount(step.blockOperations.count)
        }
    }

    private func fillTokens(
        _ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler
    ) throws {
        let count = step.tokenCount
        let source = try record.add(.tokenSource, count: count)
        let positions = try record.add(.positions, count: count * positionPlanes)
        let requests = try record.add(.requestIndex, count: count)
        let starts = try record.add(.queryStart, count: step.items.count + 1)
        var row = 0
        for (request, item) in step.items.enumerated() {
            starts[request] = Int32(truncatingIfNeeded: row)
            for position in item.range {
                if let sourceRow = item.sourceRow, position == item.range.lowerBound {
                    source[row] = Int32(truncatingIfNeeded: -1 - sourceRow)
                } else {
                    source[row] = scheduler.states[item.slot].tokens[position]
                }
                for plane in 0..<positionPlanes {
                    positions[plane * count + row] = Int32(truncatingIfNeeded: position)
                }
                requests[row] = Int32(truncatingIfNeeded: request)
                row += 1
            }
        }
        starts[step.items.count] = Int32(truncatingIfNeeded: row)
    }

    private func fillLogitRows(
        _ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler
    ) throws {
        guard step.logitRowCount > 0 else { return }
        let rows = try record.add(.logitRows, count: step.logitRowCount)
        let uses = try record.add(.rowUse, UInt32.self, count: step.logitRowCount)
        var first = 0
        for item in step.items {
            for index in 0..<item.logitRowCount {
                let isLast = item.samples && index == item.logitRowCount - 1
                var use: RowUse = index < item.contextLogitCount ? .returnLogits : []
                if isLast {
                    use.insert(.sample)
                    if scheduler.states[item.slot].request.settings.returnGenerationLogits {
                        use.insert(.returnLogits)
                    }
                }
                let row = first + (isLast ? item.range.count - 1 : index)
                rows[item.firstLogitRow + index] = Int32(truncatingIfNeeded: row)
                uses[item.firstLogitRow + index] = use.rawValue
            }
            first += item.range.count
        }
    }

    private func fillSampling(
        _ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler
    ) throws {
        let count = step.items.count
        let parameters = try record.add(
            .samplingParameters, SamplingParameters.self, count: count)
        let slots = try record.add(.stateSlot, count: count)
        let historyStarts = try record.add(.historyStart, count: count + 1)
        var biasCount = 0
        var historyCount = 0
        for (index, item) in step.items.enumerated() {
            var values = scheduler.states[item.slot].request.settings.parameters(
                outputPosition: item.outputIndex)
            let slot = scheduler.states[item.slot].stateSlot
            slots[index] = slot
            historyStarts[index] = Int32(truncatingIfNeeded: historyCount)
            if item.resetsState { values.flags |= SamplingParameters.resetState }
            if slot >= 0 {
                let prompt = scheduler.states[item.slot].promptCount - item.historyStart
                values.promptHistoryCount = Int32(
                    truncatingIfNeeded: max(min(prompt, item.historyCount), 0))
                historyCount += item.historyCount
            }
            let pairs = biasLength(item, scheduler)
            values.biasStart = Int32(truncatingIfNeeded: biasCount)
            values.biasCount = Int32(truncatingIfNeeded: pairs)
            biasCount += pairs
            parameters[index] = values
        }
        historyStarts[count] = Int32(truncatingIfNeeded: historyCount)
        if historyCount > 0 {
            let history = try record.add(.history, count: historyCount)
            for (index, item) in step.items.enumerated() where slots[index] >= 0 {
                let start = Int(historyStarts[index])
                for offset in 0..<item.historyCount {
                    history[start + offset] =
                        scheduler.states[item.slot].tokens[item.historyStart + offset]
                }
            }
        }
        if biasCount > 0 {
            let pairs = try record.add(.logitBias, LogitBias.self, count: biasCount)
            for (index, item) in step.items.enumerated() where parameters[index].biasCount > 0 {
                fillBias(pairs, from: Int(parameters[index].biasStart), item, scheduler)
            }
        }
    }

    private func biasLength(_ item: WorkItem, _ scheduler: Scheduler) -> Int {
        guard item.samples else { return 0 }
        let settings = scheduler.states[item.slot].request.settings
        let stops = item.outputIndex < settings.minTokens ? settings.stopTokens.count : 0
        return scheduler.states[item.slot].biases.count + stops
    }

    private func fillBias(
        _ pairs: UnsafeMutableBufferPointer<LogitBias>, from start: Int, _ item: WorkItem,
        _ scheduler: Scheduler
    ) {
        var place = start
        for pair in scheduler.states[item.slot].biases {
            pairs[place] = pair
            place += 1
        }
        let settings = scheduler.states[item.slot].request.settings
        guard item.outputIndex < settings.minTokens else { return }
        for token in settings.stopTokens {
            pairs[place] = LogitBias(token: token, bias: -.infinity)
            place += 1
        }
    }

    private func fillGroup(
        _ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler, index: Int,
        blockSize: Int
    ) throws {
        let count = step.items.count
        let starts = try record.add(.kvStart, group: index, count: count)
        let lengths = try record.add(.kvLength, group: index, count: count)
        var columns = 1
        for item in step.items {
            columns = max(columns, scheduler.states[item.slot].tables[index].pages.count)
        }
        record.setBlockColumns(columns, group: index)
        let table = try record.add(.blockTable, group: index, count: count * columns)
        let slots = try record.add(.slot, group: index, count: step.tokenCount)
        var row = 0
        for (request, item) in step.items.enumerated() {
            let first = scheduler.states[item.slot].tables[index].firstBlock
            starts[request] = Int32(truncatingIfNeeded: first * blockSize)
            lengths[request] = Int32(truncatingIfNeeded: item.range.upperBound)
            let base = request * columns
            let pageCount = scheduler.states[item.slot].tables[index].pages.count
            for column in 0..<columns {
                table[base + column] =
                    column < pageCount
                    ? scheduler.states[item.slot].tables[index].pages[column] : -1
            }
            for position in item.range {
                let page = Int(table[base + position / blockSize - first])
                slots[row] = Int32(truncatingIfNeeded: page * blockSize + position % blockSize)
                row += 1
            }
        }
    }
}
