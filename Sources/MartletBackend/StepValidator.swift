// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Checks a step record against limits and plan before anything of it is used.
package struct StepValidator {
    private let limits: StepLimits
    private let idLimit: Int
    private let embeddingSize: Int
    private let vocabularySize: Int
    private let groups: [KVGroup]
    private let activeGroups: [KVGroupUse]
    private let pageCount: Int
    private let hostPageCount: Int
    private let stateSlotCount: Int
    private let previousLogitRows: Int

    /// Gathers what a record is checked against.
    ///
    /// - Parameters:
    ///   - limits: Largest step.
    ///   - idLimit: Ids that may be looked up.
    ///   - embeddingSize: Floats of a row given as embedding.
    ///   - vocabularySize: V; 0 without logits.
    ///   - groups: KV groups of the engine.
    ///   - activeGroups: What the plan does with them.
    ///   - pageCount: Pages of the KV arena.
    ///   - hostPageCount: Pages of the host's arena; 0 if blocks cannot be swapped.
    ///   - stateSlotCount: Slots of sampling state.
    ///   - previousLogitRows: O of the step submitted before.
    package init(
        limits: StepLimits, idLimit: Int, embeddingSize: Int, vocabularySize: Int,
        groups: [KVGroup], activeGroups: [KVGroupUse], pageCount: Int, hostPageCount: Int = 0,
        stateSlotCount: Int, previousLogitRows: Int
    ) {
        self.limits = limits
        self.idLimit = idLimit
        self.embeddingSize = embeddingSize
        self.vocabularySize = vocabularySize
        self.groups = groups
        self.activeGroups = activeGroups
        self.pageCount = pageCount
        self.hostPageCount = hostPageCount
        self.stateSlotCount = stateSlotCount
        self.previousLogitRows = previousLogitRows
    }

    private func failure(_ message: String) -> MartletError {
        MartletError(.invalidArgument, "step record: \(message)")
    }

    private func require(_ holds: Bool, _ message: @autoclosure () -> String) throws {
        if !holds { throw failure(message()) }
    }

    /// Checks a record.
    ///
    /// - Throws: `MartletError` `.limitExceeded` or `.invalidArgument` naming what is wrong.
    package func check(_ record: StepRecord) throws {
        let (tokens, requests, rows) = (
            record.tokenCount, record.requestCount, record.logitRowCount
        )
        for (what, count, lowest, limit) in [
            ("tokens", tokens, 1, limits.maxTokens), ("requests", requests, 1, limits.maxRequests),
            ("logit rows", rows, 0, limits.maxLogitRows),
        ] where count < lowest || count > limit {
            throw MartletError(
                .limitExceeded, "a step of \(count) \(what) is outside \(lowest) ... \(limit)")
        }
        try require(record.positionPlanes == 1, "\(record.positionPlanes) position planes, not 1")
        try checkUnserved(record)
        try checkTokens(record, tokens: tokens, requests: requests)
        if rows > 0 { try checkLogitRows(record, tokens: tokens, rows: rows) }
        try checkSampling(record, requests: requests)
        for use in activeGroups { try checkGroup(record, use) }
        try checkOperations(record)
    }

    /// A section that must hold so many elements, inside the record.
    private func section<Element: BitwiseCopyable>(
        _ record: StepRecord, _ pointer: UnsafePointer<Element>?, _ name: String, count: Int
    ) throws -> UnsafePointer<Element> {
        guard let pointer, fits(record, pointer, count: count) else {
            throw failure("'\(name)' does not hold \(count) elements")
        }
        return pointer
    }

    private func fits<Element: BitwiseCopyable>(
        _ record: StepRecord, _ pointer: UnsafePointer<Element>, count: Int
    ) -> Bool {
        guard let base = record.bytes.baseAddress else { return false }
        let offset = UnsafeRawPointer(pointer) - base
        return count >= 0 && offset >= 0 && offset % 4 == 0 && offset <= record.bytes.count
            && count <= (record.bytes.count - offset) / MemoryLayout<Element>.stride
    }

    private func checkTokens(_ record: StepRecord, tokens: Int, requests: Int) throws {
        let sources = try section(
            record, record.section(.tokenSource), "tokenSource", count: tokens)
        let positions = try section(
            record, record.section(.positions), "positions", count: tokens)
        let indices = try section(
            record, record.section(.requestIndex), "requestIndex", count: tokens)
        let starts = try section(
            record, record.section(.queryStart), "queryStart", count: requests + 1)
        var embeddings = 0
        for t in 0..<tokens {
            let source = sources[t]
            if source == .min {
                embeddings += 1
            } else if source >= 0 {
                try require(
                    Int(source) < idLimit,
                    "token id \(source) is not below the vocabulary's \(idLimit)")
            } else {
                try require(
                    Int(-1 - source) < previousLogitRows,
                    "token \(t) refers to row \(-1 - source) of a step with \(previousLogitRows)")
            }
            try require(
                positions[t] >= 0 && Int(positions[t]) < limits.maxContext,
                "position \(positions[t]) is outside 0 ..< \(limits.maxContext)")
        }
        if embeddings > 0 {
            let (count, overflow) = embeddings.multipliedReportingOverflow(by: embeddingSize)
            try require(!overflow, "too many embeddings")
            _ = try section(
                record, record.section(.embeddings, Float.self), "embeddings", count: count)
        }
        try require(
            starts[0] == 0 && Int(starts[requests]) == tokens, "queryStart does not span the tokens"
        )
        for request in 0..<requests {
            try require(
                starts[request] <= starts[request + 1] && Int(starts[request + 1]) <= tokens,
                "queryStart decreases at request \(request)")
            for t in Int(starts[request])..<Int(starts[request + 1]) {
                try require(
                    Int(indices[t]) == request,
                    "row \(t) names request \(indices[t]), not \(request)")
            }
        }
    }

    /// Refuses fields that are defined and that no backend serves yet.
    private func checkUnserved(_ record: StepRecord) throws {
        for (field, name) in [(StepField.adapter, "adapter"), (.draftStart, "draftStart")] {
            try require(record.section(field) == nil, "'\(name)' is not served yet")
        }
    }

    private func checkLogitRows(_ record: StepRecord, tokens: Int, rows: Int) throws {
        let logitRows = try section(record, record.section(.logitRows), "logitRows", count: rows)
        let uses = try section(
            record, record.section(.rowUse, UInt32.self), "rowUse", count: rows)
        for row in 0..<rows {
            try require(
                logitRows[row] >= 0 && Int(logitRows[row]) < tokens,
                "logit row \(logitRows[row]) is outside 0 ..< \(tokens)")
            let use = RowUse(rawValue: uses[row])
            try require(
                use.isSubset(of: [.sample, .returnLogits]),
                "row \(row) has uses \(use.rawValue) that no kernel serves")
            try require(
                !use.contains(.sample) || record.section(.samplingParameters, UInt32.self) != nil,
                "row \(row) is sampled without sampling parameters")
        }
        if let mask = record.section(.logitMask, UInt32.self) {
            let words = (vocabularySize + 31) / 32
            try require(
                fits(record, mask, count: rows * words), "'logitMask' does not hold \(rows) rows")
        }
    }

    private func checkSampling(_ record: StepRecord, requests: Int) throws {
        if let slots = record.section(.stateSlot) {
            _ = try section(record, slots, "stateSlot", count: requests)
            for request in 0..<requests {
                try require(
                    slots[request] >= -1 && Int(slots[request]) < stateSlotCount,
                    "state slot \(slots[request]) is outside 0 ..< \(stateSlotCount)")
            }
        }
        guard let all = record.section(.samplingParameters, SamplingParameters.self) else { return }
        _ = try section(record, all, "samplingParameters", count: requests)
        for request in 0..<requests where all[request].biasCount > 0 {
            let parameters = all[request]
            guard let pairs = record.section(.logitBias, UInt64.self), parameters.biasStart >= 0,
                fits(record, pairs, count: Int(parameters.biasStart) + Int(parameters.biasCount))
            else { throw failure("request \(request) points outside 'logitBias'") }
        }
        guard let starts = record.section(.historyStart) else { return }
        _ = try section(record, starts, "historyStart", count: requests + 1)
        try require(starts[0] >= 0, "historyStart begins at \(starts[0])")
        for request in 0..<requests {
            try require(
                starts[request] <= starts[request + 1], "historyStart decreases at \(request)")
            try require(
                all[request].promptHistoryCount >= 0,
                "request \(request) has a negative prompt history")
        }
        if starts[requests] > 0 {
            _ = try section(
                record, record.section(.history), "history", count: Int(starts[requests]))
        }
    }

    private func checkGroup(_ record: StepRecord, _ use: KVGroupUse) throws {
        let index = use.group
        let group = groups[index]
        let isCross = group.kind == .crossAttention
        let (tokens, requests) = (record.tokenCount, record.requestCount)
        let columns = record.blockColumns(group: index)
        let (entries, overflow) = requests.multipliedReportingOverflow(by: columns)
        try require(!overflow, "block tables of \(columns) columns")
        let starts = try section(
            record, record.section(.kvStart, group: index), "kvStart", count: requests)
        let lengths = try section(
            record, record.section(.kvLength, group: index), "kvLength", count: requests)
        let blocks = try section(
            record, record.section(.blockTable, group: index), "blockTable", count: entries)
        if use.isWritten {
            let slots = try section(
                record, record.section(.slot, group: index), "slot", count: tokens)
            let slotEnd = pageCount * group.blockSize
            for t in 0..<tokens {
                try require(
                    slots[t] >= -1 && Int(slots[t]) < slotEnd,
                    "slot \(slots[t]) is outside 0 ..< \(slotEnd)")
            }
        }
        guard let positions = record.section(.positions), let rows = record.section(.queryStart)
        else { return }
        for request in 0..<requests {
            let (start, length) = (Int(starts[request]), Int(lengths[request]))
            try require(
                start >= 0 && start % group.blockSize == 0 && length >= 0
                    && length <= limits.maxContext,
                "request \(request) has KV from \(start) to \(length), beyond \(limits.maxContext)")
            // All of an encoder's tokens are seen, wherever the rows stand that look at them.
            try require(
                !isCross || length > 0 || rows[request] == rows[request + 1],
                "request \(request) has no tokens of an encoder in KV group '\(group.name)'")
            var lowest = isCross ? 0 : length
            for t in isCross ? 0..<0 : Int(rows[request])..<Int(rows[request + 1]) {
                let end = Int(positions[t]) + 1
                try require(
                    end <= length,
                    "position \(end - 1) of request \(request) exceeds its KV of \(length)")
                lowest = min(lowest, group.window.map { max(end - $0, 0) } ?? 0)
            }
            guard lowest < length else { continue }
            for page in lowest / group.blockSize...(length - 1) / group.blockSize {
                let column = page - start / group.blockSize
                guard column >= 0, column < columns,
                    case let id = Int(blocks[request * columns + column]), id >= 0, id < pageCount
                else {
                    throw failure(
                        "request \(request) has no valid block for positions from \(page * group.blockSize)"
                    )
                }
            }
        }
    }

    private func checkOperations(_ record: StepRecord) throws {
        let count = record.blockOperationCount()
        guard count > 0 else { return }
        let operations = try section(
            record, record.section(.blockOperations, BlockOperation.self), "blockOperations",
            count: count)
        for operation in UnsafeBufferPointer(start: operations, count: count) {
            guard let kind = BlockOperation.Kind(rawValue: operation.kind) else {
                throw failure("there is no block operation \(operation.kind)")
            }
            try require(
                groups.indices.contains(Int(operation.group)),
                "a block operation names KV group \(operation.group) of \(groups.count)")
            let sources = kind == .swapIn ? hostPageCount : pageCount
            let destinations = kind == .swapOut ? hostPageCount : pageCount
            try require(
                kind == .copy || hostPageCount > 0, "this device does not swap blocks to the host")
            try require(
                operation.source >= 0 && Int(operation.source) < sources
                    && operation.destination >= 0 && Int(operation.destination) < destinations,
                "\(kind) of block \(operation.source) to \(operation.destination) is outside "
                    + "0 ..< \(sources) and 0 ..< \(destinations)")
        }
    }
}
