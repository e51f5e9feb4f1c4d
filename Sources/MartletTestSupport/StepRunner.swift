// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

/// A range of one request's tokens in a step.
package struct StepPart: Sendable {
    /// Which request.
    package var request: Int
    /// Its next tokens.
    package var tokens: [Int32]

    /// Names a range.
    package init(_ request: Int, _ tokens: [Int32]) {
        self.request = request
        self.tokens = tokens
    }
}

/// Runs steps by hand on an executor, every row with logits, its KV pages in random order.
package struct StepRunner {
    private let executor: any PlanExecutor
    private let record: StepRecord
    private let stream: Int
    private let groups: Range<Int>
    private var freePages: [Int32]
    private var pages: [[Int: [Int32]]]
    private var lengths: [Int: Int] = [:]
    private var number = 0

    /// Prepares an entry point.
    ///
    /// - Parameters:
    ///   - executor: The device.
    ///   - stream: Index of the entry point.
    ///   - groups: The entry point's KV groups among all of the executor.
    package init(_ executor: any PlanExecutor, stream: Int = 0, groups: Range<Int>? = nil) {
        self.executor = executor
        self.stream = stream
        self.groups = groups ?? executor.kvGroups.indices
        record = StepRecord(limits: executor.limits, groups: executor.kvGroups)
        var random = SeededRandom(seed: 17)
        freePages = (0..<Int32(clamping: executor.pageCount)).shuffled(using: &random)
        pages = executor.kvGroups.map { _ in [:] }
    }

    /// Runs a step of one or more requests.
    ///
    /// - Returns: All that the executor gave; logits of every row.
    /// - Throws: `MartletError` of the executor, or `.limitExceeded` without free pages.
    package mutating func run(_ parts: [StepPart], wantsLogits: Bool = true) async throws
        -> StepOutputs
    {
        let count = parts.reduce(0) { $0 + $1.tokens.count }
        record.begin(stream: stream, number: number)
        number += 1
        record.setCounts(
            tokens: count, requests: parts.count, logitRows: wantsLogits ? count : 0)
        try fillRows(parts, count: count, wantsLogits: wantsLogits)
        for group in groups { try fill(parts, group: group, count: count) }
        let outputs = StepOutputs()
        let (executor, record) = (executor, record)
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            do {
                try executor.submit(record, outputs: outputs) { error in
                    if let error { done.resume(throwing: error) } else { done.resume() }
                }
            } catch { done.resume(throwing: error) }
        }
        for part in parts { lengths[part.request, default: 0] += part.tokens.count }
        return outputs
    }

    private func fillRows(_ parts: [StepPart], count: Int, wantsLogits: Bool) throws {
        let tokens = try record.add(.tokenSource, count: count)
        let positions = try record.add(.positions, count: count)
        let requestIndex = try record.add(.requestIndex, count: count)
        let queryStart = try record.add(.queryStart, count: parts.count + 1)
        let sampling = try record.add(
            .samplingParameters, SamplingParameters.self, count: parts.count)
        let stateSlot = try record.add(.stateSlot, count: parts.count)
        var row = 0
        queryStart[0] = 0
        for (index, part) in parts.enumerated() {
            for (offset, token) in part.tokens.enumerated() {
                tokens[row] = token
                positions[row] = Int32(lengths[part.request, default: 0] + offset)
                requestIndex[row] = Int32(index)
                row += 1
            }
            queryStart[index + 1] = Int32(row)
            sampling[index] = SamplingParameters()
            stateSlot[index] = -1
        }
        guard wantsLogits else { return }
        let logitRows = try record.add(.logitRows, count: count)
        let rowUse = try record.add(.rowUse, UInt32.self, count: count)
        for row in 0..<count {
            logitRows[row] = Int32(row)
            rowUse[row] = RowUse.returnLogits.rawValue
        }
        for index in parts.indices {
            rowUse[Int(queryStart[index + 1]) - 1] |= RowUse.sample.rawValue
        }
    }

    private mutating func fill(_ parts: [StepPart], group: Int, count: Int) throws {
        let kind = executor.kvGroups[group]
        let size = kind.blockSize
        let kvStart = try record.add(.kvStart, group: group, count: parts.count)
        let kvLength = try record.add(.kvLength, group: group, count: parts.count)
        let slots = try record.add(.slot, group: group, count: count)
        var row = 0
        var tables: [[Int32]] = []
        for (index, part) in parts.enumerated() {
            let start = lengths[part.request, default: 0]
            let end = start + part.tokens.count
            while pages[group][part.request, default: []].count * size < end {
                guard let page = freePages.popLast() else {
                    throw MartletError(.limitExceeded, "no free KV pages")
                }
                pages[group][part.request, default: []].append(page)
            }
            let table = pages[group][part.request, default: []]
            // Pages before the window of the first row are left out, as a scheduler frees them.
            let firstPage = kind.window.map { max(0, start + 1 - $0) / size } ?? 0
            tables.append(Array(table[firstPage...]))
            kvStart[index] = Int32(firstPage * size)
            kvLength[index] = Int32(end)
            for position in start..<end {
                slots[row] = table[position / size] * Int32(size) + Int32(position % size)
                row += 1
            }
        }
        let columns = tables.map(\.count).max() ?? 0
        record.setBlockColumns(columns, group: group)
        let blocks = try record.add(.blockTable, group: group, count: columns * parts.count)
        for (index, table) in tables.enumerated() {
            for column in 0..<columns {
                blocks[index * columns + column] = column < table.count ? table[column] : -1
            }
        }
    }
}
