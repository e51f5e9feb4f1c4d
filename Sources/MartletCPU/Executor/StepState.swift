// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// One step's inputs as kernels see them: addresses into the record, and tables made from it.
///
/// `@unchecked Sendable`: the dispatcher fills it before the team runs, which only reads.
final class StepState: @unchecked Sendable {
    /// T.
    private(set) var tokenCount = 0
    /// B.
    private(set) var requestCount = 0
    /// O.
    private(set) var logitRowCount = 0
    private(set) var record: StepRecord?
    private(set) var outputs: StepOutputs?
    /// `[T]`: token ids; -1 where there is none.
    let ids: UnsafeMutablePointer<Int32>
    /// `[T]`: row of `embeddings` to take instead; -1 for none.
    let embeddingRows: UnsafeMutablePointer<Int32>
    private(set) var embeddings: UnsafePointer<Float>?
    /// `[T]`.
    private(set) var positions: UnsafePointer<Int32>
    /// `[B + 1]`.
    private(set) var queryStart: UnsafePointer<Int32>
    /// `[O]`.
    private(set) var logitRows: UnsafePointer<Int32>?
    /// `[T]`: position + 1.
    let causalEnds: UnsafeMutablePointer<Int32>
    /// Groups of the engine.
    let groups: [StepGroup]
    private let memory: MappedArena

    init(limits: StepLimits, groups: [KVGroup]) throws {
        let tokens = limits.maxTokens
        memory = try MappedArena(count: 3 * tokens * 4, purpose: "step inputs")
        ids = memory.base.bindMemory(to: Int32.self, capacity: 3 * tokens)
        embeddingRows = ids + tokens
        causalEnds = ids + 2 * tokens
        positions = UnsafePointer(ids)
        queryStart = UnsafePointer(ids)
        self.groups = try groups.map { try StepGroup(group: $0, limits: limits) }
    }

    /// Takes a validated record; ids refer to the tokens of the step before.
    func begin(
        _ record: StepRecord, outputs: StepOutputs, groups active: [KVGroupUse],
        previousTokens: [Int32]
    ) {
        tokenCount = record.tokenCount
        requestCount = record.requestCount
        logitRowCount = record.logitRowCount
        self.record = record
        self.outputs = outputs
        embeddings = record.section(.embeddings, Float.self)
        logitRows = record.section(.logitRows)
        guard let sources = record.section(.tokenSource),
            let positions = record.section(.positions),
            let queryStart = record.section(.queryStart)
        else {
            tokenCount = 0
            requestCount = 0
            logitRowCount = 0
            return
        }
        self.positions = positions
        self.queryStart = queryStart
        var embeddingCount: Int32 = 0
        for t in 0..<tokenCount {
            let source = sources[t]
            embeddingRows[t] = -1
            causalEnds[t] = positions[t] + 1
            if source >= 0 {
                ids[t] = source
            } else if source == .min {
                ids[t] = -1
                embeddingRows[t] = embeddingCount
                embeddingCount += 1
            } else {
                // A row that failed has token -1: its embedding is NaN, which ends its own request.
                let row = Int(-1 - source)
                ids[t] = row < previousTokens.count ? previousTokens[row] : -1
            }
        }
        for use in active { groups[use.group].begin(record, group: use.group) }
    }

    /// The largest position of the step, plus one.
    var positionEnd: Int {
        var end: Int32 = 0
        for t in 0..<tokenCount { end = max(end, causalEnds[t]) }
        return Int(end)
    }

    /// Lets go of the record.
    func end() {
        record = nil
        outputs = nil
        embeddings = nil
    }
}

/// A KV group's part of a step.
///
/// `@unchecked Sendable`: as `StepState`.
final class StepGroup: @unchecked Sendable {
    /// `[T]`; nil where the entry point only reads.
    private(set) var slots: UnsafePointer<Int32>?
    /// `[T]`: all of the request's visible tokens.
    let fullEnds: UnsafeMutablePointer<Int32>
    private let tables: UnsafeMutablePointer<Int32>
    private let tableColumns: Int
    private let blocksPerPage: Int
    private let blockSize: Int
    private let memory: MappedArena

    init(group: KVGroup, limits: StepLimits) throws {
        blockSize = group.blockSize
        blocksPerPage = KVPages.blocksPerPage(group)
        // Whole pages, so that a table never ends inside one.
        tableColumns = (limits.maxContext / blockSize + 1) * blocksPerPage
        let (entries, overflow) = tableColumns.multipliedReportingOverflow(by: limits.maxRequests)
        guard !overflow, entries < 1 << 36 else {
            throw MartletError(
                .limitExceeded, "block tables of \(limits.maxRequests) requests are too large")
        }
        memory = try MappedArena(
            count: (entries + limits.maxTokens) * 4, purpose: "block tables")
        tables = memory.base.bindMemory(to: Int32.self, capacity: entries + limits.maxTokens)
        fullEnds = tables + entries
    }

    /// Block ids of a request by absolute position / 16; 0, a page that exists, where unknown.
    func table(of request: Int) -> UnsafeMutablePointer<Int32> { tables + request * tableColumns }

    func begin(_ record: StepRecord, group: Int) {
        slots = record.section(.slot, group: group)
        guard let starts = record.section(.kvStart, group: group),
            let lengths = record.section(.kvLength, group: group),
            let blocks = record.section(.blockTable, group: group),
            let requests = record.section(.requestIndex)
        else { return }
        let columns = record.blockColumns(group: group)
        for request in 0..<record.requestCount {
            let table = table(of: request)
            let firstPage = Int(starts[request]) / blockSize
            let pages = (Int(lengths[request]) + blockSize - 1) / blockSize
            for page in 0..<pages {
                let column = page - firstPage
                let known = column >= 0 && column < columns
                let id = known ? max(blocks[request * columns + column], 0) : 0
                for block in 0..<blocksPerPage {
                    table[page * blocksPerPage + block] = id * Int32(blocksPerPage) + Int32(block)
                }
            }
        }
        for t in 0..<record.tokenCount { fullEnds[t] = lengths[Int(requests[t])] }
    }
}
