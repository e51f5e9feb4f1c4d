// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

/// Writes scheduled steps into step records.
package struct StepBuilder: Sendable {
    /// Entry points and KV groups.
    package let streams: RequestStreams
    /// P.
    package let positionPlanes: Int
    /// V, for masks.
    package let vocabularySize: Int

    /// The scheduler's states, read in place.
    typealias States = UnsafePointer<RequestState>

    /// Fixes what all steps share.
    ///
    /// - Parameters:
    ///   - streams: Entry points and KV groups.
    ///   - positionPlanes: P; text has the same position in every plane.
    ///   - vocabularySize: V, for masks; records must have room for them.
    package init(
        streams: RequestStreams, positionPlanes: Int = 1, vocabularySize: Int = 0
    ) {
        self.streams = streams
        self.positionPlanes = max(positionPlanes, 1)
        self.vocabularySize = max(vocabularySize, 0)
    }

    /// Fills a record; to be called before the scheduler's next change.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if the step outgrows the record's memory.
    package func fill(_ record: StepRecord, _ step: ScheduledStep, _ scheduler: Scheduler) throws {
        let stream = streams.stream(step.stream)
        record.begin(
            stream: stream.entryPoint, number: step.number, positionPlanes: positionPlanes)
        record.setCounts(
            tokens: step.tokenCount, requests: step.items.count, logitRows: step.logitRowCount)
        try scheduler.states.withUnsafeBufferPointer { states in
            guard let states = states.baseAddress else { return }
            try fillTokens(record, step, states)
            try fillLogitRows(record, step, states)
            try fillSampling(record, step, states)
            for use in stream.uses { try fillGroup(record, step, states, use) }
        }
        guard !step.blockOperations.isEmpty else { return }
        let operations = try record.add(
            .blockOperations, BlockOperation.self, count: step.blockOperations.count)
        for (index, operation) in step.blockOperations.enumerated() {
            operations[index] = operation
            operations[index].group = Int32(
                truncatingIfNeeded: streams.places[Int(operation.group)])
        }
        record.setBlockOperationCount(step.blockOperations.count)
    }

    private func fillTokens(_ record: StepRecord, _ step: ScheduledStep, _ states: States) throws {
        let count = step.tokenCount
        let source = try record.add(.tokenSource, count: count)
        let positions = try record.add(.positions, count: count * positionPlanes)
        let requests = try record.add(.requestIndex, count: count)
        let starts = try record.add(.queryStart, count: step.items.count + 1)
        var row = 0
        for request in step.items.indices {
            let item = step.items[request]
            starts[request] = Int32(truncatingIfNeeded: row)
            if item.stream == .source {
                for (position, token) in states[item.slot].request.source.enumerated() {
                    source[row] = token
                    positions[row] = Int32(truncatingIfNeeded: position)
                    requests[row] = Int32(truncatingIfNeeded: request)
                    row += 1
                }
                continue
            }
            var position = item.range.lowerBound
            if let sourceRow = item.sourceRow {
                source[row] = Int32(truncatingIfNeeded: -1 - sourceRow)
                positions[row] = Int32(truncatingIfNeeded: position)
                requests[row] = Int32(truncatingIfNeeded: request)
                row += 1
                position += 1
            }
            while position < item.range.upperBound {
                // Only rows of padding may lie behind what is known.
                let known = states[item.slot].tokens.count
                source[row] = states[item.slot].tokens[min(position, known - 1)]
                positions[row] = Int32(truncatingIfNeeded: position)
                requests[row] = Int32(truncatingIfNeeded: request)
                row += 1
                position += 1
            }
        }
        for plane in 1..<max(positionPlanes, 1) {
            for row in 0..<count { positions[plane * count + row] = positions[row] }
        }
        starts[step.items.count] = Int32(truncatingIfNeeded: row)
    }

    private func fillLogitRows(
        _ record: StepRecord, _ step: ScheduledStep, _ states: States
    ) throws {
        guard step.logitRowCount > 0 else { return }
        let rows = try record.add(.logitRows, count: step.logitRowCount)
        let uses = try record.add(.rowUse, UInt32.self, count: step.logitRowCount)
        var first = 0
        let sample = RowUse.sample.rawValue, returned = RowUse.returnLogits.rawValue
        for item in step.items {
            let end = item.range.count
            for index in 0..<item.logitRowCount {
                let isLast = item.samples && index == item.logitRowCount - 1
                var use = index < item.contextLogitCount ? returned : 0
                if isLast {
                    let own = states[item.slot].isPlain || item.isPadding
                    use |= own ? sample : states[item.slot].facts.rowUse
                }
                let row = first + (isLast ? end - 1 : index)
                rows[item.firstLogitRow + index] = Int32(truncatingIfNeeded: row)
                uses[item.firstLogitRow + index] = use
            }
            first += end
        }
    }

    private func fillGroup(
        _ record: StepRecord, _ step: ScheduledStep, _ states: States, _ use: KVGroupUse
    ) throws {
        let (index, place, count) = (use.group, streams.places[use.group], step.items.count)
        let blockSize = streams.groups[index].blockSize
        let starts = try record.add(.kvStart, group: place, count: count)
        let lengths = try record.add(.kvLength, group: place, count: count)
        var columns = 1
        for item in step.items {
            columns = max(columns, states[item.slot].tables[index].pages.count)
        }
        record.setBlockColumns(columns, group: place)
        let table = try record.add(.blockTable, group: place, count: count * columns)
        let slots =
            use.isWritten ? try record.add(.slot, group: place, count: step.tokenCount) : nil
        guard let entries = table.baseAddress else { return }
        var row = 0
        for request in step.items.indices {
            let item = step.items[request]
            let first = states[item.slot].tables[index].firstBlock
            starts[request] = Int32(truncatingIfNeeded: first * blockSize)
            lengths[request] = Int32(
                truncatingIfNeeded: use.isWritten
                    ? item.range.upperBound : states[item.slot].source.computed)
            let base = entries + request * columns
            let pageCount = states[item.slot].tables[index].pages.withUnsafeBufferPointer { pages in
                if let source = pages.baseAddress { base.update(from: source, count: pages.count) }
                return pages.count
            }
            (base + pageCount).update(repeating: -1, count: columns - pageCount)
            guard let slots else { continue }
            var (block, offset) = item.range.lowerBound.quotientAndRemainder(dividingBy: blockSize)
            for _ in 0..<item.range.count {
                let page = Int(base[block - first])
                slots[row] = Int32(truncatingIfNeeded: page * blockSize + offset)
                row += 1
                offset += 1
                if offset == blockSize { (block, offset) = (block + 1, 0) }
            }
        }
    }
}

extension WorkItem {
    /// Logit rows of the item that come to the host.
    func returnedRowCount(_ facts: RequestFacts) -> Int {
        guard samples, contextLogitCount < range.count else { return contextLogitCount }
        let returned = RowUse(rawValue: facts.rowUse).contains(.returnLogits)
        return contextLogitCount + (returned ? 1 : 0)
    }
}
