// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Largest step that a record, a plan's buffers and an executor are sized for.
package struct StepLimits: Sendable, Hashable, Codable {
    /// T: tokens in a step.
    package var maxTokens: Int
    /// B: requests in a step.
    package var maxRequests: Int
    /// O: rows with logits in a step.
    package var maxLogitRows: Int
    /// L: tokens of one request, prompt and answer.
    package var maxContext: Int

    /// Sets the limits; each at least 1.
    package init(maxTokens: Int, maxRequests: Int, maxLogitRows: Int, maxContext: Int) {
        self.maxTokens = maxTokens
        self.maxRequests = maxRequests
        self.maxLogitRows = maxLogitRows
        self.maxContext = maxContext
    }

    /// The values that plan buffers are sized with.
    package var dimensions: Dimension.Values {
        Dimension.Values(
            tokens: maxTokens, requests: maxRequests, logitRows: maxLogitRows, context: maxContext)
    }
}

/// One step as a relocatable byte record: the same for every backend and every rank.
///
/// Word layout (u32): 0 magic, 1 version, 2 bytes used, 3 stream (entry point index), 4 T, 5 B, 6 O,
/// 7 P, 8 group count, 9 flags (none yet), 10 step number, 11 block operations, 12 blocks per table
/// row of group 0 ..., then the offset table: one byte offset per `StepField`, then per group one per
/// `StepGroupField`; then the sections, each 64-byte aligned. Offsets count from the record's start, so
/// bytes can be copied anywhere. Memory is reserved once for the limits, but pages of it are taken only
/// when a step reaches them; building a step allocates nothing.
///
/// `@unchecked Sendable`: one owner at a time. The step loop writes it, then hands it to
/// `PlanExecutor.submit` and leaves it alone until the step's completion.
package final class StepRecord: @unchecked Sendable {
    /// First word of a record: `MTSP`.
    package static let magic: UInt32 = 0x5053_544d
    /// Second word: layout of the rest.
    package static let version: UInt32 = 2
    static let fixedWords = 12

    /// Groups that the record has sections for.
    package let groupCount: Int
    /// Limits that the memory was reserved for.
    package let limits: StepLimits
    private let base: UnsafeMutableRawPointer
    private let capacity: Int
    private var used: Int
    /// How often `begin` was called.
    private var beginCount: UInt64 = 0
    /// The layout of the newest step that had one, and its number by `beginCount`.
    private var layout = 0
    private var layoutStep: UInt64 = 0
    /// Of each group, what is known of its block table's memory.
    private var keptTables: [KeptTable]

    /// Reserves memory for the largest step.
    ///
    /// - Parameters:
    ///   - limits: Largest step.
    ///   - groups: KV groups of the plan.
    ///   - positionPlanes: P.
    ///   - vocabularySize: V, for masks; 0 if masks are never used.
    ///   - embeddingSize: H, for rows given as embeddings; 0 if none are.
    package init(
        limits: StepLimits, groups: [KVGroup], positionPlanes: Int = 1, vocabularySize: Int = 0,
        embeddingSize: Int = 0
    ) {
        self.limits = limits
        groupCount = groups.count
        capacity = Self.byteCount(
            limits: limits, groups: groups, positionPlanes: positionPlanes,
            vocabularySize: vocabularySize, embeddingSize: embeddingSize)
        base = .allocate(byteCount: capacity, alignment: 64)
        used = 0
        keptTables = groups.map { _ in KeptTable(requests: limits.maxRequests) }
        begin(stream: 0, number: 0, positionPlanes: positionPlanes)
    }

    /// Bytes of memory that a record reserves; parameters as for `init`.
    package static func byteCount(
        limits: StepLimits, groups: [KVGroup], positionPlanes: Int = 1, vocabularySize: Int = 0,
        embeddingSize: Int = 0
    ) -> Int {
        let tokens = limits.maxTokens, requests = limits.maxRequests, rows = limits.maxLogitRows
        var words = tokens * (2 + positionPlanes) + requests * (4 + 16 + 8) + rows * 2
        words += rows * ((vocabularySize + 31) / 32) + tokens * 4 + limits.maxContext
        words += requests * (512 + 2 * LogitBias.maxPerRequest)
        words += requests * limits.maxContext / 4 + tokens * embeddingSize
        for group in groups {
            let blocks = limits.maxContext / group.blockSize + 2
            words += requests * (2 + blocks) + tokens
            // Every block of every request may be copied, to the host and another one back.
            words += 2 * requests * blocks * MemoryLayout<BlockOperation>.size / 4
        }
        let sections = StepField.allCases.count + groups.count * StepGroupField.allCases.count
        return words * 4 + sections * 68 + (fixedWords + groups.count + sections) * 4 + 4096
    }

    deinit { base.deallocate() }

    private func word(_ index: Int) -> UnsafeMutablePointer<UInt32> {
        (base + index * 4).assumingMemoryBound(to: UInt32.self)
    }

    private var tableStart: Int { Self.fixedWords + groupCount }
    private var headerWords: Int {
        tableStart + StepField.allCases.count + groupCount * StepGroupField.allCases.count
    }

    /// Starts an empty step, forgetting the last one's content.
    ///
    /// - Parameters:
    ///   - stream: Entry point index.
    ///   - number: Step number, for logs.
    ///   - positionPlanes: P.
    package func begin(stream: Int, number: Int, positionPlanes: Int = 1) {
        beginCount += 1
        base.initializeMemory(as: UInt8.self, repeating: 0, count: headerWords * 4)
        word(0).pointee = Self.magic
        word(1).pointee = Self.version
        word(3).pointee = UInt32(truncatingIfNeeded: stream)
        word(7).pointee = UInt32(truncatingIfNeeded: positionPlanes)
        word(8).pointee = UInt32(truncatingIfNeeded: groupCount)
        word(10).pointee = UInt32(truncatingIfNeeded: number)
        let headerEnd = headerWords * 4
        used = (headerEnd + 63) & ~63
        (base + headerEnd).initializeMemory(as: UInt8.self, repeating: 0, count: used - headerEnd)
        word(2).pointee = UInt32(truncatingIfNeeded: used)
    }

    /// Starts rows of a layout; true if the step before, in this record, had the same one.
    ///
    /// All that lies in the sections is as it was then, if they are added in the same order and sizes. Layouts
    /// are the writer's names, 0 for none.
    package func beginLayout(_ layout: Int) -> Bool {
        defer { (self.layout, layoutStep) = (0, 0) }
        return layout != 0 && self.layout == layout && layoutStep + 1 == beginCount
    }

    /// Says that the step's rows are written and have a layout.
    package func endLayout(_ layout: Int) { (self.layout, layoutStep) = (layout, beginCount) }

    /// Sets T, B and O.
    package func setCounts(tokens: Int, requests: Int, logitRows: Int) {
        word(4).pointee = UInt32(truncatingIfNeeded: tokens)
        word(5).pointee = UInt32(truncatingIfNeeded: requests)
        word(6).pointee = UInt32(truncatingIfNeeded: logitRows)
    }

    /// Entry point index.
    package var stream: Int { Int(word(3).pointee) }
    /// T.
    package var tokenCount: Int { Int(word(4).pointee) }
    /// B.
    package var requestCount: Int { Int(word(5).pointee) }
    /// O.
    package var logitRowCount: Int { Int(word(6).pointee) }
    /// P.
    package var positionPlanes: Int { Int(word(7).pointee) }
    /// Step number.
    package var number: Int { Int(word(10).pointee) }
    /// Block table columns of a group.
    package func blockColumns(group: Int) -> Int { Int(word(Self.fixedWords + group).pointee) }
    /// Sets the block table columns of a group.
    package func setBlockColumns(_ count: Int, group: Int) {
        word(Self.fixedWords + group).pointee = UInt32(truncatingIfNeeded: count)
    }

    /// Adds a group's block table `[requests, columns]`; rows of the last step that lie in the same place are kept.
    ///
    /// Most rows stay the same from step to step, and a writer that names them by stamps need not
    /// write them again.
    ///
    /// - Parameter body: Is given the table and one stamp per row: 0 where the row's content is unknown, else
    ///   what an earlier `body` set for the row that lies there.
    /// - Throws: `MartletError` `.limitExceeded` if the step outgrows the reserved memory.
    package func addBlockTable(
        group: Int, requests: Int, columns: Int,
        _ body: (_ table: UnsafeMutablePointer<Int32>, _ stamps: UnsafeMutablePointer<UInt64>)
            throws -> Void
    ) throws {
        setBlockColumns(columns, group: group)
        let table = try add(.blockTable, group: group, count: requests * columns)
        keptTables[group].renew(
            step: beginCount, offset: Int(word(index(.blockTable, group)).pointee),
            columns: columns, requests: requests)
        try keptTables[group].stamps.withUnsafeMutableBufferPointer { stamps in
            guard let table = table.baseAddress, let stamps = stamps.baseAddress else { return }
            try body(table, stamps)
        }
    }

    /// The record's bytes, to be sent elsewhere.
    package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: used) }

    private func index(_ field: StepField) -> Int { tableStart + field.rawValue }
    private func index(_ field: StepGroupField, _ group: Int) -> Int {
        tableStart + StepField.allCases.count + group * StepGroupField.allCases.count
            + field.rawValue
    }

    private func reserve<Element: BitwiseCopyable>(
        _ tableIndex: Int, _ type: Element.Type, _ count: Int
    ) throws -> UnsafeMutableBufferPointer<Element> {
        let size = count * MemoryLayout<Element>.stride
        guard used + size <= capacity else {
            throw MartletError(
                .limitExceeded, "a step record of \(used + size) bytes exceeds its \(capacity)",
                mend: "Raise --max-num-tokens or lower what one step asks for")
        }
        word(tableIndex).pointee = UInt32(truncatingIfNeeded: used)
        let start = (base + used).bindMemory(to: Element.self, capacity: max(count, 1))
        let end = min((used + size + 63) & ~63, capacity)
        (base + used + size).initializeMemory(
            as: UInt8.self, repeating: 0, count: end - used - size)
        used = end
        word(2).pointee = UInt32(truncatingIfNeeded: used)
        return UnsafeMutableBufferPointer(start: start, count: count)
    }

    /// Reserves a section for writing; each at most once per step.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if the step outgrows the reserved memory.
    package func add<Element: BitwiseCopyable>(
        _ field: StepField, _ type: Element.Type = Int32.self, count: Int
    ) throws -> UnsafeMutableBufferPointer<Element> { try reserve(index(field), type, count) }

    /// Reserves a KV group's section for writing.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if the step outgrows the reserved memory.
    package func add(
        _ field: StepGroupField, group: Int, count: Int
    ) throws -> UnsafeMutableBufferPointer<Int32> {
        try reserve(index(field, group), Int32.self, count)
    }

    /// A section for reading, nil if empty.
    package func section<Element: BitwiseCopyable>(
        _ field: StepField, _ type: Element.Type = Int32.self
    ) -> UnsafePointer<Element>? {
        let offset = Int(word(index(field)).pointee)
        guard offset != 0 else { return nil }
        return UnsafePointer((base + offset).assumingMemoryBound(to: type))
    }

    /// A KV group's section for reading, nil if empty.
    package func section(_ field: StepGroupField, group: Int) -> UnsafePointer<Int32>? {
        let offset = Int(word(index(field, group)).pointee)
        guard offset != 0 else { return nil }
        return UnsafePointer((base + offset).assumingMemoryBound(to: Int32.self))
    }

    /// How many block operations the section holds.
    package func blockOperationCount() -> Int { Int(word(11).pointee) }
    /// Sets how many block operations the section holds.
    package func setBlockOperationCount(_ count: Int) {
        word(11).pointee = UInt32(truncatingIfNeeded: count)
    }
}
