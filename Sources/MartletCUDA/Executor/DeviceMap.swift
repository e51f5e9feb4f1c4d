// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

/// What device memory is used for, in bytes: the written budget of an engine.
package struct DeviceBudget: Sendable {
    /// A use.
    package struct Entry: Sendable {
        /// What for.
        package let purpose: String
        /// Bytes.
        package internal(set) var byteCount: Int
    }
    /// Uses, in the order of their addresses.
    package internal(set) var entries: [Entry] = []

    /// Bytes in all.
    package var total: Int { entries.reduce(0) { $0 + $1.byteCount } }

    mutating func add(_ byteCount: Int, for purpose: String) {
        if let last = entries.indices.last, entries[last].purpose == purpose {
            entries[last].byteCount += byteCount
        } else {
            entries.append(Entry(purpose: purpose, byteCount: byteCount))
        }
    }
}

/// Where everything lies in the one piece of memory that an executor takes.
///
/// Filled in a fixed order, so that a first pass at address 0 finds the sizes and a second one at the
/// real address gives the same offsets. Used by the loading thread only.
final class DeviceMap {
    let base: UInt64
    let limits: StepLimits
    /// Architecture that launches are made for.
    let target: KernelArchitecture
    /// Whether one kernel does an operation for every count of rows.
    let isDeterministic: Bool
    let groups: [KVGroup]
    let inputs: StepInputs
    let results: ResultMemory
    let pages: PageMemory
    private let parameterBytes: [PlanParameter: Int]
    private(set) var used = 0
    private(set) var budget = DeviceBudget()
    private(set) var parameters: [PlanParameter: UInt64] = [:]
    private(set) var rotaryTables: [RotaryTable] = []
    private(set) var sampling: SamplingMemory?
    private(set) var conversions: [(source: DeviceVector, target: DeviceVector)] = []
    private var scratchAreas: [String: UInt64] = [:]
    private let stateSlotCount: Int

    /// - Parameters:
    ///   - base: First address.
    ///   - pageStart: Offset of the KV arena, known after the first pass.
    ///   - groups: KV groups of the engine.
    init(
        base: UInt64, pageStart: Int, pages: KVPageSizes, plans: [Plan], groups: [KVGroup],
        parameterBytes: [PlanParameter: Int], options: CUDAOptions
    ) throws {
        self.base = base
        limits = options.limits
        target = options.target
        isDeterministic = options.isDeterministic
        self.groups = groups
        stateSlotCount = options.stateSlotCount
        self.parameterBytes = parameterBytes
        self.pages = PageMemory(address: base + UInt64(pageStart), sizes: pages)
        var layout = ByteLayout()
        // Results end where inputs begin: one piece to copy.
        results = ResultMemory(base: base, layout: &layout, rows: options.limits.maxLogitRows)
        inputs = try StepInputs(
            base: base, layout: &layout, plans: plans, groups: groups, limits: options.limits)
        used = Self.aligned(layout.end)
        budget.add(used, for: "step inputs and results")
        for parameter in parameterBytes.keys.sorted(by: { $0.description < $1.description }) {
            parameters[parameter] = try reserve(parameterBytes[parameter] ?? 0, for: "weights")
        }
    }

    /// Bytes in whole pages of 4 KB: what a warp reads at once must begin a line of the cache.
    ///
    /// Weights 64 bytes past one were read 3 to 6 % slower (H100, decode of 7B in int8 and bf16).
    private static func aligned(_ byteCount: Int) -> Int { (byteCount + 4095) / 4096 * 4096 }

    /// Takes memory.
    func reserve(_ byteCount: Int, for purpose: String) throws -> UInt64 {
        guard byteCount >= 0, byteCount < 1 << 44 else {
            throw Refusal("\(byteCount) bytes for \(purpose) are out of range")
        }
        let size = Self.aligned(byteCount)
        let address = base + UInt64(used)
        used += size
        budget.add(size, for: purpose)
        return address
    }

    /// A vector in another type, converted once after loading.
    func converted(_ vector: DeviceVector, to type: DType) throws -> DeviceVector {
        if vector.type == type { return vector }
        if let known = conversions.first(where: {
            $0.source.address == vector.address && $0.target.type == type
        }) {
            return known.target
        }
        let address = try reserve(vector.count * type.byteCount, for: "converted vectors")
        let target = DeviceVector(address: address, count: vector.count, type: type)
        conversions.append((vector, target))
        return target
    }

    /// Memory that kernels use for the length of one launch, shared by all that want as much for the
    /// same purpose; zero at first.
    func scratch(_ byteCount: Int, for purpose: String) throws -> UInt64 {
        let key = "\(purpose) \(byteCount)"
        if let known = scratchAreas[key] { return known }
        let address = try reserve(byteCount, for: purpose)
        scratchAreas[key] = address
        return address
    }

    /// A parameter's bytes.
    func byteCount(of parameter: PlanParameter) -> Int? { parameterBytes[parameter] }

    /// The rotary table of frequencies, shared by the layers.
    func rotaryTable(_ frequencies: DeviceVector, magnitude: Double) throws -> RotaryTable {
        if let known = rotaryTables.first(where: {
            $0.frequencies.address == frequencies.address && $0.magnitude == magnitude
        }) {
            return known
        }
        let bytes = limits.maxContext * frequencies.count * 4
        let table = RotaryTable(
            frequencies: frequencies, magnitude: magnitude, positions: limits.maxContext,
            cosines: try reserve(bytes, for: "rotary tables"),
            sines: try reserve(bytes, for: "rotary tables"))
        rotaryTables.append(table)
        return table
    }

    /// State and scratch of the sampler.
    func samplingMemory(vocabularySize: Int) throws -> SamplingMemory {
        if let sampling {
            guard sampling.vocabularySize == vocabularySize else {
                throw Refusal(
                    "one plan samples from \(sampling.vocabularySize) logits, another from \(vocabularySize)"
                )
            }
            return sampling
        }
        let rows = limits.maxRequests
        let memory = SamplingMemory(
            vocabularySize: vocabularySize, slotCount: stateSlotCount,
            marks: try reserve(stateSlotCount * vocabularySize * 4, for: "sampling state"),
            adjusted: try reserve(rows * vocabularySize * 4, for: "sampling scratch"))
        sampling = memory
        return memory
    }
}

/// Offsets given out one after another.
struct ByteLayout {
    private(set) var end = 0

    mutating func add(_ byteCount: Int) -> Int {
        let start = end
        end = (end + byteCount + 63) / 64 * 64
        return start
    }
}

/// Cosines and sines by position.
struct RotaryTable {
    let frequencies: DeviceVector
    let magnitude: Double
    let positions: Int
    let cosines: UInt64
    let sines: UInt64
    var pairCount: Int { frequencies.count }
}

/// State slots, and what the sampler writes while it works.
struct SamplingMemory {
    let vocabularySize: Int
    let slotCount: Int
    let marks: UInt64
    let adjusted: UInt64
}

/// Results of a step's logit rows: four arrays that are copied together, and the lists of top tokens.
struct ResultMemory {
    static let topLimit = 256

    let rows: Int
    let tokens: UInt64
    let status: UInt64
    let logProbabilities: UInt64
    let topCounts: UInt64
    let topTokens: UInt64
    let topValues: UInt64

    init(base: UInt64, layout: inout ByteLayout, rows: Int) {
        self.rows = rows
        topTokens = base + UInt64(layout.add(rows * Self.topLimit * 4))
        topValues = base + UInt64(layout.add(rows * Self.topLimit * 4))
        let start = base + UInt64(layout.add(rows * 16))
        tokens = start
        status = start + UInt64(rows * 4)
        logProbabilities = start + UInt64(rows * 8)
        topCounts = start + UInt64(rows * 12)
    }
}

/// The KV arena: equal pages that the groups of the engine share.
struct PageMemory {
    let address: UInt64
    let pageBytes: Int
    let pageCount: Int

    init(address: UInt64, sizes: KVPageSizes) {
        self.address = address
        pageBytes = sizes.pageBytes
        pageCount = sizes.pageCount
    }

    /// Address of a page, whose number was checked with the step record.
    func page(_ number: Int32) -> UInt64 { address + UInt64(Int(number) * pageBytes) }
}

/// Sizes of the KV arena.
struct KVPageSizes {
    let pageBytes: Int
    var pageCount: Int

    /// - Throws: `MartletError` if groups are damaged or a number of pages is out of range.
    init(groups: [KVGroup], pageCount: Int) throws {
        var bytes = 0
        for group in groups {
            guard (1...1 << 16).contains(group.layerCount),
                (1...1 << 14).contains(group.kvHeadCount), (1...1024).contains(group.headDim),
                group.blockSize > 0, group.blockSize % CUDACatalog.kvBlock == 0,
                group.blockSize <= 1 << 16, (1...Int(Int32.max)).contains(group.window ?? 1)
            else { throw MartletError(.corrupt, "a KV group has sizes out of range: \(group)") }
            guard group.scheme.dtype.isActivation, group.scheme.scaleBytesPerRow == 0 else {
                throw MartletError(
                    .unsupported,
                    "GPUs store keys and values as f32, f16 or bf16, not \(group.scheme.dtype.rawValue) with scales",
                    mend: "Use --kv-dtype f32, f16 or bf16")
            }
            bytes = max(bytes, group.bytesPerBlock)
        }
        pageBytes = (bytes + 255) / 256 * 256
        // Slots are 32-bit numbers.
        let largest = groups.map { Int(Int32.max) / $0.blockSize }.min() ?? 0
        self.pageCount = groups.isEmpty ? 0 : min(pageCount, largest)
    }

    var byteCount: Int { pageBytes * pageCount }
}
