// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
package import MartletEngineFile

/// What an engine's plans take of a GPU's memory: the budget that an executor would write, reckoned without a GPU.
package struct MemoryPlan: Sendable {
    /// What memory is used for, the KV cache last.
    package let budget: DeviceBudget
    /// KV groups of the engine.
    package let groups: [KVGroup]
    /// Bytes of a KV page.
    package let pageBytes: Int
    /// Pages of the KV arena.
    package let pageCount: Int
    /// Pages that would fit if nothing but memory bounded them.
    package let pageRoom: Int
    /// Graphs that are recorded, and kernels in all of them.
    package let graphs: (count: Int, kernels: Int)

    /// Reckons.
    ///
    /// - Parameters:
    ///   - plans: The engine's plans.
    ///   - options: As for an executor.
    ///   - architecture: Whose kernels are started.
    ///   - freeBytes: Free memory of the GPU.
    /// - Throws: `MartletError` `.corrupt` if a plan is damaged, `.limitExceeded` if not a page fits, or more is
    ///   asked for than is free.
    package init(
        _ plans: [Plan], options: CUDAOptions, architecture: KernelArchitecture, freeBytes: Int
    ) throws {
        var options = options
        options.target = architecture
        groups = try EngineKVGroups(plans).groups
        let one = try KVPageSizes(groups: groups, pageCount: 1)
        let bound = try BoundPlan.bind(
            plans, base: 0, pageStart: 0, pages: one,
            parameterBytes: BoundPlan.parameterBytes(plans), options: options)
        let used = bound.memory.used
        let pages = try KVPageSizes.fitting(
            groups, options: options, budget: bound.memory.budget, used: used,
            freeBytes: { freeBytes })
        pageBytes = pages.pageBytes
        pageCount = pages.pageCount
        pageRoom =
            one.pageBytes > 0
            ? max(KVPageSizes.room(options, freeBytes: freeBytes) - used, 0) / one.pageBytes : 0
        guard used + pages.byteCount <= freeBytes else {
            throw KVPageSizes.overflow(
                bound.memory.budget, used: used, cache: pages.byteCount, least: one.byteCount,
                freeBytes: freeBytes)
        }
        var budget = bound.memory.budget
        budget.add(pages.byteCount, for: "KV cache")
        self.budget = budget
        var count = 0
        var kernels = 0
        for plan in bound.plans {
            for bucket in DevicePlan.buckets(options.limits) {
                let values = Dimension.Values(
                    tokens: bucket, requests: bucket, logitRows: bucket,
                    context: options.limits.maxContext,
                    singles: options.singles(bucket))
                count += 1
                // Two kernels copy inputs and results.
                kernels += 2
                kernels += plan.launches.count {
                    let grid = $0.launch.grid(values)
                    return grid.x > 0 && grid.y > 0 && grid.z > 0
                }
            }
        }
        let slots = CUDAExecutorCore.maxStepsInFlight
        graphs = options.usesGraphs ? (slots * count, slots * kernels) : (0, 0)
    }
}

extension KVPageSizes {
    /// Bytes that an engine may take where no size of the KV cache is given.
    static func room(_ options: CUDAOptions, freeBytes: Int) -> Int {
        Int(Double(freeBytes) * min(max(options.memoryFraction, 0), 1))
    }

    /// The KV arena beside so many bytes of weights and buffers.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if not a page fits.
    static func fitting(
        _ groups: [KVGroup], options: CUDAOptions, budget: DeviceBudget, used: Int,
        freeBytes: () throws -> Int
    ) throws -> KVPageSizes {
        var pages = try KVPageSizes(groups: groups, pageCount: options.pageCount ?? 1)
        guard !groups.isEmpty else { return pages }
        let pageBytes = pages.pageBytes
        if options.pageCount == nil {
            let given: Int
            if let bytes = options.kvByteCount {
                given = bytes
            } else {
                let free = try freeBytes()
                let room = room(options, freeBytes: free)
                guard used + pageBytes <= room else {
                    guard used + pageBytes <= free else {
                        throw overflow(
                            budget, used: used, cache: pageBytes, least: pageBytes, freeBytes: free)
                    }
                    throw MartletError(
                        .limitExceeded,
                        "\(used) bytes of weights and buffers leave no room for a KV page of "
                            + "\(pageBytes) in \(room), --memory-fraction \(options.memoryFraction) "
                            + "of the \(free) free bytes of the GPU",
                        mend: "Raise --memory-fraction, or give --kv-cache-memory")
                }
                given = min(room - used, options.kvByteLimit ?? room - used)
            }
            pages = try KVPageSizes(groups: groups, pageCount: max(given, 0) / pageBytes)
        }
        guard pages.pageCount > 0 else {
            throw MartletError(
                .limitExceeded,
                "the memory for cached keys and values holds no KV page of \(pageBytes) bytes",
                mend: "Raise --kv-cache-memory")
        }
        return pages
    }

    /// What is said where not all that is asked for fits a GPU, by what takes most of it.
    ///
    /// - Parameters:
    ///   - used: Bytes of weights and buffers.
    ///   - cache: Bytes of the KV cache.
    ///   - least: Bytes of a KV cache of one page.
    static func overflow(
        _ budget: DeviceBudget, used: Int, cache: Int, least: Int, freeBytes: Int
    ) -> MartletError {
        let weights = budget.entries.reduce(0) {
            $0 + ($1.purpose == "weights" ? $1.byteCount : 0)
        }
        guard weights < freeBytes else {
            return MartletError(
                .limitExceeded,
                "\(weights) bytes of weights leave no room in the \(freeBytes) free bytes of the GPU",
                mend: "Use --quantize int8 or int4, or a larger GPU")
        }
        return MartletError(
            .limitExceeded,
            "\(weights) bytes of weights and \(used - weights) of buffers leave no room for a KV cache of "
                + "\(cache) in the \(freeBytes) free bytes of the GPU",
            mend: used + least <= freeBytes && least < cache
                ? "Lower --kv-cache-memory to at most \(freeBytes - used) bytes"
                : "Lower --max-num-tokens or --max-batch-size, or use --quantize int8 or int4")
    }
}
