// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

/// A step's inputs at fixed places of device memory, so that launches do not depend on the step.
///
/// The sections of the step record, each with room for the largest step, after the counts that kernels
/// look at. Sections that every step has come first, `commonBytes` that are copied together, with room for a few biases;
/// large and rare ones follow and are copied where a step has them.
struct StepInputs {
    /// Bytes of `StepCounts`.
    private static let countBytes = 20
    private static let common: [StepField] = [
        .tokenSource, .positions, .requestIndex, .queryStart, .logitRows, .rowUse,
        .samplingParameters, .stateSlot, .historyStart,
    ]

    let base: UInt64
    let byteCount: Int
    private let limits: StepLimits
    private let offsets: [StepField: Int]
    private let groupOffsets: [[StepGroupField: Int]]
    private let columns: [Int]
    let commonBytes: Int
    private let historyLimit: Int
    private let maskWords: Int
    private let embeddingSize: Int

    init(
        base: UInt64, layout: inout ByteLayout, plans: [Plan], groups: [KVGroup],
        limits: StepLimits
    ) throws {
        let start = layout.add(Self.countBytes)
        let (tokens, requests, rows) = (limits.maxTokens, limits.maxRequests, limits.maxLogitRows)
        var offsets: [StepField: Int] = [:]
        func add(_ field: StepField, _ words: Int, _ layout: inout ByteLayout) throws {
            guard words >= 0, words < 1 << 34 else {
                throw Refusal("a step of these limits does not fit memory")
            }
            offsets[field] = layout.add(words * 4) - start
        }
        for field in Self.common {
            let words =
                switch field {
                case .tokenSource, .positions, .requestIndex: tokens
                case .queryStart, .historyStart: requests + 1
                case .logitRows, .rowUse: rows
                case .samplingParameters: requests * 16
                default: requests
                }
            try add(field, words, &layout)
        }
        var groupOffsets: [[StepGroupField: Int]] = []
        var columns: [Int] = []
        for group in groups {
            guard group.blockSize > 0 else { throw Refusal("a KV group of no tokens a block") }
            let count = limits.maxContext / group.blockSize + 2
            columns.append(count)
            var places: [StepGroupField: Int] = [:]
            for field in StepGroupField.allCases {
                let words =
                    switch field {
                    case .kvStart, .kvLength: requests
                    case .blockTable: requests * count
                    case .slot: tokens
                    }
                places[field] = layout.add(words * 4) - start
            }
            groupOffsets.append(places)
        }
        let embeddingSize =
            plans.flatMap(\.steps).filter { $0.op == "embedding" }
            .compactMap { Self.columns($0.results.first) }.max() ?? 0
        let vocabulary =
            plans.flatMap(\.steps).filter { $0.op == "sample" }
            .compactMap { Self.columns($0.operands.first) }.max() ?? 0
        let maskWords = (vocabulary + 31) / 32
        let historyLimit = min(requests * limits.maxContext, 1 << 26)
        try add(.logitBias, vocabulary > 0 ? requests * LogitBias.maxPerRequest * 2 : 0, &layout)
        // Often there are a few: stop tokens, before an answer has its least length.
        commonBytes = (offsets[.logitBias] ?? 0) + (vocabulary > 0 ? requests * 4 * 8 : 0)
        try add(.history, vocabulary > 0 ? historyLimit : 0, &layout)
        try add(.logitMask, rows * maskWords, &layout)
        try add(.embeddings, tokens * embeddingSize, &layout)
        self.base = base + UInt64(start)
        self.limits = limits
        self.embeddingSize = embeddingSize
        self.maskWords = maskWords
        self.historyLimit = historyLimit
        byteCount = layout.end - start
        self.offsets = offsets
        self.groupOffsets = groupOffsets
        self.columns = columns
    }

    private static func columns(_ operand: PlanOperand?) -> Int? {
        if case .buffer(_, _, let columns)? = operand { columns } else { nil }
    }

    /// Address of the counts.
    var counts: UInt64 { base }
    /// Address of a section.
    func address(_ field: StepField) -> UInt64 { base + UInt64(offsets[field] ?? 0) }
    /// Address of a KV group's section.
    func address(_ field: StepGroupField, group: Int) -> UInt64 {
        base + UInt64(groupOffsets[group][field] ?? 0)
    }
    /// Columns of a group's block table.
    func tableColumns(group: Int) -> Int { columns[group] }

    /// A part of the inputs behind the common ones that a step fills.
    struct Range {
        let offset: Int
        let byteCount: Int
    }

    /// Writes a validated record to host memory of the same arrangement.
    ///
    /// - Parameters:
    ///   - record: The step.
    ///   - target: `byteCount` bytes.
    ///   - plan: The plan that runs.
    ///   - singles: Requests of one token each in front of all others that are computed apart.
    ///   - ranges: Gets the parts behind the common ones that must be copied to the device.
    /// - Throws: `MartletError` `.limitExceeded` where the record holds more than is reserved.
    func write(
        _ record: StepRecord, to target: UnsafeMutableRawPointer, for plan: BoundPlan,
        singles: Int, ranges: inout [Range]
    ) throws {
        ranges.removeAll(keepingCapacity: true)
        let (tokens, requests, rows) = (
            record.tokenCount, record.requestCount, record.logitRowCount
        )
        func place(_ field: StepField) -> UnsafeMutableRawPointer {
            target + (offsets[field] ?? 0)
        }
        func copy(_ field: StepField, words: Int, otherwise value: Int32) {
            let place = place(field)
            if let source = record.section(field, UInt32.self) {
                place.copyMemory(from: source, byteCount: words * 4)
            } else {
                let values = place.assumingMemoryBound(to: Int32.self)
                for index in 0..<words { values[index] = value }
            }
        }
        var flags: UInt32 = 0
        for field in Self.common where field != .tokenSource {
            let words =
                switch field {
                case .positions, .requestIndex: tokens
                case .queryStart, .historyStart: requests + 1
                case .logitRows, .rowUse: rows
                case .samplingParameters: requests * 16
                default: requests
                }
            copy(field, words: words, otherwise: field == .stateSlot ? -1 : 0)
        }
        if rows > 0, maskWords > 0, plan.samples, let mask = record.section(.logitMask, UInt32.self)
        {
            flags |= 1
            try rare(.logitMask, rows * maskWords * 4, rows * maskWords * 4, mask, target, &ranges)
        }
        try writeSources(record, target, embeddingSize: plan.embeddingSize, &ranges)
        try writeSampling(record, target, &ranges)
        for use in plan.groups { write(record, group: use.group, to: target) }
        let counts = target.assumingMemoryBound(to: UInt32.self)
        counts[0] = UInt32(truncatingIfNeeded: tokens)
        counts[1] = UInt32(truncatingIfNeeded: requests)
        counts[2] = UInt32(truncatingIfNeeded: rows)
        counts[3] = flags
        counts[4] = UInt32(truncatingIfNeeded: singles)
    }

    private func rare(
        _ field: StepField, _ byteCount: Int, _ limit: Int, _ source: UnsafeRawPointer,
        _ target: UnsafeMutableRawPointer, _ ranges: inout [Range]
    ) throws {
        guard byteCount <= limit, let offset = offsets[field] else {
            throw MartletError(
                .limitExceeded, "a step has \(byteCount) bytes of \(field), more than \(limit)",
                mend: "Lower what one step asks for")
        }
        (target + offset).copyMemory(from: source, byteCount: byteCount)
        if offset + byteCount > commonBytes {
            ranges.append(Range(offset: offset, byteCount: byteCount))
        }
    }

    /// Rows given as embeddings are numbered from the smallest number on.
    private func writeSources(
        _ record: StepRecord, _ target: UnsafeMutableRawPointer, embeddingSize: Int,
        _ ranges: inout [Range]
    ) throws {
        guard let sources = record.section(.tokenSource) else { return }
        let place = (target + (offsets[.tokenSource] ?? 0)).assumingMemoryBound(to: Int32.self)
        var given: Int32 = 0
        for t in 0..<record.tokenCount {
            place[t] = sources[t]
            if sources[t] == .min {
                place[t] = .min + given
                given += 1
            }
        }
        guard given > 0, let values = record.section(.embeddings, Float.self) else { return }
        let bytes = Int(given) * embeddingSize * 4
        try rare(
            .embeddings, bytes, limits.maxTokens * self.embeddingSize * 4, values, target, &ranges)
    }

    private func writeSampling(
        _ record: StepRecord, _ target: UnsafeMutableRawPointer, _ ranges: inout [Range]
    ) throws {
        guard maskWords > 0,
            let parameters = record.section(.samplingParameters, SamplingParameters.self)
        else { return }
        var pairs = 0
        for request in 0..<record.requestCount where parameters[request].biasCount > 0 {
            pairs = max(
                pairs, Int(parameters[request].biasStart) + Int(parameters[request].biasCount))
        }
        if pairs > 0, let bias = record.section(.logitBias, LogitBias.self) {
            try rare(
                .logitBias, pairs * 8, limits.maxRequests * LogitBias.maxPerRequest * 8, bias,
                target, &ranges)
        }
        if let starts = record.section(.historyStart), let history = record.section(.history) {
            let count = Int(starts[record.requestCount])
            if count > 0 {
                try rare(.history, count * 4, historyLimit * 4, history, target, &ranges)
            }
        }
    }

    private func write(_ record: StepRecord, group: Int, to target: UnsafeMutableRawPointer) {
        let (tokens, requests) = (record.tokenCount, record.requestCount)
        func copy(_ field: StepGroupField, words: Int) {
            guard let source = record.section(field, group: group),
                let offset = groupOffsets[group][field]
            else { return }
            (target + offset).copyMemory(from: source, byteCount: words * 4)
        }
        copy(.kvStart, words: requests)
        copy(.kvLength, words: requests)
        copy(.slot, words: tokens)
        guard let blocks = record.section(.blockTable, group: group),
            let offset = groupOffsets[group][.blockTable]
        else { return }
        let (given, stored) = (record.blockColumns(group: group), columns[group])
        let table = (target + offset).assumingMemoryBound(to: Int32.self)
        for request in 0..<requests {
            for column in 0..<min(given, stored) {
                // Unknown blocks are never looked at; page 0 exists.
                table[request * stored + column] = max(blocks[request * given + column], 0)
            }
        }
    }
}

extension StepRecord {
    /// Requests of one token each in front of all others.
    var leadingSingles: Int {
        guard let start = section(.queryStart, Int32.self) else { return 0 }
        return (0..<requestCount).first { start[$0 + 1] != $0 + 1 } ?? requestCount
    }
}
