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
        let isKept = record.beginLayout(step.layout)
        try scheduler.states.withUnsafeBufferPointer { states in
            guard let states = states.baseAddress else { return }
            if isKept {
                try renewRows(record, step, states)
            } else {
                try fillTokens(record, step, states)
                try fillLogitRows(record, step, states)
                try fillSampling(record, step, states)
            }
            try scheduler.tables.withTables { tables in
                for use in stream.uses { try fillGroup(record, step, states, tables, use) }
            }
        }
        record.endLayout(step.layout)
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
                source[row] = -1 - sourceRow
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
        _ record: StepRecord, _ step: ScheduledStep, _ states: States,
        _ tables: BlockTables.InPlace, _ use: KVGroupUse
    ) throws {
        let (group, place, count) = (use.group, streams.places[use.group], step.items.count)
        let blockSize = streams.groups[group].blockSize
        let starts = try record.add(.kvStart, group: place, count: count)
        let lengths = try record.add(.kvLength, group: place, count: count)
        var longest = 1
        step.items.withUnsafeBufferPointer { items in
            for request in 0..<count {
                let slot = items[request].slot
                let start = tables[slot, group].pointee.firstBlock &* blockSize
                let length =
                    use.isWritten ? items[request].range.upperBound : states[slot].source.computed
                starts[request] = Int32(truncatingIfNeeded: start)
                lengths[request] = Int32(truncatingIfNeeded: length)
                longest = max(longest, length &- start)
            }
        }
        let columns = columns(for: longest, blockSize, record.limits)
        let slots =
            use.isWritten ? try record.add(.slot, group: place, count: step.tokenCount) : nil
        let places = BlockPlaces(blockSize)
        try record.addBlockTable(group: place, requests: count, columns: columns) { rows, stamps in
            step.items.withUnsafeBufferPointer { items in
                var row = 0
                for request in 0..<count {
                    let table = tables[items[request].slot, group]
                    let base = rows + request &* columns
                    renew(base, &stamps[request], table, columns)
                    guard let slots else { continue }
                    let first = table.pointee.firstBlock
                    for position in items[request].range {
                        let (block, offset) = places.split(position)
                        slots[row] = Int32(
                            truncatingIfNeeded: Int(base[block &- first]) &* blockSize &+ offset)
                        row &+= 1
                    }
                }
            }
        }
    }

    /// Writes what a row of a block table lacks: nothing, if it holds this very table already.
    private func renew(
        _ row: UnsafeMutablePointer<Int32>, _ stamp: inout UInt64,
        _ table: UnsafePointer<BlockTable>, _ columns: Int
    ) {
        let known = stamp
        guard known != table.pointee.stamp || known == 0 else { return }
        stamp = table.pointee.stamp
        if known != 0, known == table.pointee.stampBefore {
            writeLast(table.pointee.pages.span, to: row, columns)
        } else {
            write(table.pointee.pages.span, to: row, columns)
        }
    }

    /// Columns for a block table of so many positions: in eights, so that most steps leave rows where they
    /// lay before.
    private func columns(for positions: Int, _ blockSize: Int, _ limits: StepLimits) -> Int {
        let needed = (positions + blockSize - 1) / blockSize
        return max(needed, min((needed + 7) & ~7, limits.maxContext / blockSize + 2))
    }

    private func writeLast(
        _ pages: Span<Int32>, to row: UnsafeMutablePointer<Int32>, _ columns: Int
    ) {
        guard !pages.isEmpty, pages.count <= columns else { return }
        row[pages.count - 1] = pages[pages.count - 1]
    }

    private func write(
        _ pages: Span<Int32>, to row: UnsafeMutablePointer<Int32>, _ columns: Int
    ) {
        let count = min(pages.count, columns)
        pages.withUnsafeBufferPointer {
            if let source = $0.baseAddress { row.update(from: source, count: count) }
        }
        (row + count).update(repeating: -1, count: columns - count)
    }
}

/// Where positions lie in blocks; where the size is a power of two, as it is as good as always, without a division.
private struct BlockPlaces {
    private let size: Int
    private let shift: Int

    init(_ size: Int) {
        self.size = size
        shift = size.nonzeroBitCount == 1 ? size.trailingZeroBitCount : -1
    }

    @inline(__always)
    func split(_ position: Int) -> (block: Int, offset: Int) {
        guard shift >= 0 else { return (position / size, position % size) }
        return (position &>> shift, position & (size &- 1))
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
