// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletGraph

/// Runs steps of a case on an executor, with a paged cache whose pages lie in random order.
struct StepDriver {
    /// Rows of a named output of one step.
    typealias Rows = [[Float]]

    private let executor: any PlanExecutor
    private let record: StepRecord
    private var freePages: [Int32]
    private var pages: [[[Int32]]]
    private var lengths: [Int]
    private var number = 0

    init(_ executor: any PlanExecutor, requestCount: Int) {
        self.executor = executor
        record = StepRecord(for: executor)
        var random = SeededRandom(seed: 11)
        freePages = (0..<Int32(clamping: executor.pageCount)).shuffled(using: &random)
        lengths = Array(repeating: 0, count: requestCount)
        pages = executor.kvGroups.map { _ in Array(repeating: [], count: requestCount) }
    }

    /// Runs a step.
    ///
    /// - Returns: Named outputs; `tokens` holds sampled ids where the plan samples.
    /// - Throws: `MartletError` of the executor, or `.limitExceeded` if it has too few pages.
    mutating func run(_ parts: [ConformanceCase.Part], samples: Bool) async throws
        -> [String: Rows]
    {
        try fill(parts)
        let outputs = StepOutputs()
        let (executor, record) = (executor, record)
        try await withCheckedThrowingContinuation {
            (continuation: CheckedContinuation<Void, any Error>) in
            do {
                try executor.submit(record, outputs: outputs) { error in
                    if let error {
                        continuation.resume(throwing: error)
                    } else {
                        continuation.resume()
                    }
                }
            } catch {
                continuation.resume(throwing: error)
            }
        }
        for part in parts { lengths[part.request] += part.tokens.count }
        var named = outputs.named
        if samples { named["tokens"] = outputs.tokens.map { [Float($0)] } }
        return named
    }

    private mutating func fill(_ parts: [ConformanceCase.Part]) throws {
        let tokenCount = parts.reduce(0) { $0 + $1.tokens.count }
        record.begin(stream: 0, number: number)
        number += 1
        record.setCounts(tokens: tokenCount, requests: parts.count, logitRows: parts.count)
        let tokens = try record.add(.tokenSource, count: tokenCount)
        let positions = try record.add(.positions, count: tokenCount)
        let requestIndex = try record.add(.requestIndex, count: tokenCount)
        let queryStart = try record.add(.queryStart, count: parts.count + 1)
        let logitRows = try record.add(.logitRows, count: parts.count)
        let rowUse = try record.add(.rowUse, UInt32.self, count: parts.count)
        let sampling = try record.add(
            .samplingParameters, SamplingParameters.self, count: parts.count)
        let stateSlot = try record.add(.stateSlot, count: parts.count)
        var row = 0
        queryStart[0] = 0
        for (index, part) in parts.enumerated() {
            for (offset, token) in part.tokens.enumerated() {
                tokens[row] = token
                positions[row] = Int32(lengths[part.request] + offset)
                requestIndex[row] = Int32(index)
                row += 1
            }
            queryStart[index + 1] = Int32(row)
            logitRows[index] = Int32(row - 1)
            rowUse[index] = RowUse.sample.rawValue
            sampling[index] = SamplingParameters()
            stateSlot[index] = -1
        }
        for group in executor.kvGroups.indices { try fill(parts, group: group) }
    }

    private mutating func fill(_ parts: [ConformanceCase.Part], group: Int) throws {
        let kind = executor.kvGroups[group]
        let size = kind.blockSize
        let tokenCount = parts.reduce(0) { $0 + $1.tokens.count }
        let kvStart = try record.add(.kvStart, group: group, count: parts.count)
        let kvLength = try record.add(.kvLength, group: group, count: parts.count)
        let slots = try record.add(.slot, group: group, count: tokenCount)
        var row = 0
        var tables: [[Int32]] = []
        for (index, part) in parts.enumerated() {
            let start = lengths[part.request]
            let end = start + part.tokens.count
            while pages[group][part.request].count * size < end {
                guard let page = freePages.popLast() else {
                    throw MartletError(
                        .limitExceeded, "\(executor.pageCount) KV pages are too few for the suite")
                }
                pages[group][part.request].append(page)
            }
            // Pages before the window of the first row are left out, as the scheduler frees them.
            let firstPage = kind.window.map { max(0, start + 1 - $0) / size } ?? 0
            tables.append(Array(pages[group][part.request][firstPage...]))
            kvStart[index] = Int32(firstPage * size)
            kvLength[index] = Int32(end)
            for position in start..<end {
                let page = pages[group][part.request][position / size]
                slots[row] = page * Int32(size) + Int32(position % size)
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
