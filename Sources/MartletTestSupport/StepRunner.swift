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
    /// Rows `[tokens][H]` given in place of the tokens' embeddings; empty for none.
    package var embeddings: [Float]

    /// Names a range.
    package init(_ request: Int, _ tokens: [Int32], embeddings: [Float] = []) {
        self.request = request
        self.tokens = tokens
        self.embeddings = embeddings
    }
}

/// A request's tokens of one entry point.
struct RequestStream: Hashable {
    let request: Int
    let stream: Int

    init(_ request: Int, _ stream: Int) {
        self.request = request
        self.stream = stream
    }
}

/// Runs steps by hand on an executor, every row with logits, its KV pages in random order.
package struct StepRunner {
    private let executor: any PlanExecutor
    private let record: StepRecord
    private let stream: Int
    private var freePages: [Int32]
    /// Per KV group: pages of each request, and how many tokens they hold.
    private var pages: [[Int: [Int32]]]
    private var held: [[Int: Int]]
    private var lengths: [RequestStream: Int] = [:]
    private var number = 0

    /// Prepares an executor.
    ///
    /// - Parameters:
    ///   - executor: The device.
    ///   - stream: Index of the entry point that steps run where they name none.
    package init(_ executor: any PlanExecutor, stream: Int = 0) {
        self.executor = executor
        self.stream = stream
        record = StepRecord(for: executor)
        var random = SeededRandom(seed: 17)
        freePages = (0..<Int32(clamping: executor.pageCount)).shuffled(using: &random)
        pages = executor.kvGroups.map { _ in [:] }
        held = pages.map { _ in [:] }
    }

    /// Runs a step of one or more requests.
    ///
    /// - Parameters:
    ///   - parts: Tokens of each request.
    ///   - stream: The entry point; nil for the runner's own.
    ///   - wantsLogits: Whether all rows have logits, and the last of each request draws.
    ///   - allows: Tokens that may be drawn; nil for all.
    ///   - operations: Copies of pages before the first kernel.
    /// - Returns: All that the executor gave; logits of every row.
    /// - Throws: `MartletError` of the executor, or `.limitExceeded` without free pages.
    package mutating func run(
        _ parts: [StepPart], stream: Int? = nil, wantsLogits: Bool = true,
        allows: ((Int) -> Bool)? = nil, operations: [BlockOperation] = []
    ) async throws -> StepOutputs {
        let stream = stream ?? self.stream
        let count = parts.reduce(0) { $0 + $1.tokens.count }
        record.begin(stream: stream, number: number)
        number += 1
        record.setCounts(
            tokens: count, requests: parts.count, logitRows: wantsLogits ? count : 0)
        try fillRows(parts, stream: stream, count: count, wantsLogits: wantsLogits)
        if !operations.isEmpty {
            let section = try record.add(
                .blockOperations, BlockOperation.self, count: operations.count)
            for (index, operation) in operations.enumerated() { section[index] = operation }
            record.setBlockOperationCount(operations.count)
        }
        if let allows { try fillMask(rows: count, allows) }
        for use in executor.groupUses[stream] {
            try fill(parts, stream: stream, use, count: count)
        }
        let outputs = StepOutputs()
        let (executor, record) = (executor, record)
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            do {
                try executor.submit(record, outputs: outputs) { error in
                    if let error { done.resume(throwing: error) } else { done.resume() }
                }
            } catch { done.resume(throwing: error) }
        }
        for part in parts {
            lengths[RequestStream(part.request, stream), default: 0] += part.tokens.count
        }
        return outputs
    }

    private func fillRows(
        _ parts: [StepPart], stream: Int, count: Int, wantsLogits: Bool
    ) throws {
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
            let start = lengths[RequestStream(part.request, stream), default: 0]
            for (offset, token) in part.tokens.enumerated() {
                tokens[row] = part.embeddings.isEmpty ? token : .min
                positions[row] = Int32(start + offset)
                requestIndex[row] = Int32(index)
                row += 1
            }
            queryStart[index + 1] = Int32(row)
            sampling[index] = SamplingParameters()
            stateSlot[index] = -1
        }
        let embeddings = parts.flatMap(\.embeddings)
        if !embeddings.isEmpty {
            let rows = try record.add(.embeddings, Float.self, count: embeddings.count)
            for (index, value) in embeddings.enumerated() { rows[index] = value }
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

    private func fillMask(rows: Int, _ allows: (Int) -> Bool) throws {
        let words = (executor.vocabularySize + 31) / 32
        let mask = try record.add(.logitMask, UInt32.self, count: rows * words)
        for word in 0..<words {
            var bits: UInt32 = 0
            for bit in 0..<32 where word * 32 + bit < executor.vocabularySize {
                if allows(word * 32 + bit) { bits |= 1 << UInt32(bit) }
            }
            for row in 0..<rows { mask[row * words + word] = bits }
        }
    }

    /// Gives the requests pages for what they write, or the ones that another entry point wrote.
    private mutating func fill(
        _ parts: [StepPart], stream: Int, _ use: KVGroupUse, count: Int
    ) throws {
        let group = use.group
        let kind = executor.kvGroups[group]
        let size = kind.blockSize
        let kvStart = try record.add(.kvStart, group: group, count: parts.count)
        let kvLength = try record.add(.kvLength, group: group, count: parts.count)
        var slots: [Int32] = []
        var tables: [[Int32]] = []
        for (index, part) in parts.enumerated() {
            let start = lengths[RequestStream(part.request, stream), default: 0]
            if use.isWritten {
                let end = start + part.tokens.count
                while pages[group][part.request, default: []].count * size < end {
                    guard let page = freePages.popLast() else {
                        throw MartletError(.limitExceeded, "no free KV pages")
                    }
                    pages[group][part.request, default: []].append(page)
                }
                held[group][part.request] = end
                let table = pages[group][part.request, default: []]
                for position in start..<end {
                    slots.append(table[position / size] * Int32(size) + Int32(position % size))
                }
            }
            let table = pages[group][part.request, default: []]
            // Pages before the window of the first row are left out, as a scheduler frees them.
            let firstPage = kind.window.map { max(0, start + 1 - $0) / size } ?? 0
            tables.append(Array(table[firstPage...]))
            kvStart[index] = Int32(firstPage * size)
            kvLength[index] = Int32(held[group][part.request, default: 0])
        }
        if use.isWritten {
            let section = try record.add(.slot, group: group, count: count)
            for (row, slot) in slots.enumerated() { section[row] = slot }
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
