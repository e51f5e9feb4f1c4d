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
    /// - Throws: `MartletError` `.corrupt` if a plan is damaged, `.limitExceeded` if not a page fits.
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
            groups, options: options, used: used, freeBytes: { freeBytes })
        pageBytes = pages.pageBytes
        pageCount = pages.pageCount
        pageRoom =
            one.pageBytes > 0
            ? max(KVPageSizes.room(options, freeBytes: freeBytes) - used, 0) / one.pageBytes : 0
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
                kernels += plan.launches.count {
                    let grid = $0.launch.grid(values)
                    return grid.x > 0 && grid.y > 0 && grid.z > 0
                }
            }
        }
        graphs = options.usesGraphs ? (count, kernels) : (0, 0)
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
        _ groups: [KVGroup], options: CUDAOptions, used: Int, freeBytes: () throws -> Int
    ) throws -> KVPageSizes {
        var pages = try KVPageSizes(groups: groups, pageCount: options.pageCount ?? 1)
        guard !groups.isEmpty else { return pages }
        if options.pageCount == nil {
            let given: Int
            if let bytes = options.kvByteCount {
                given = bytes
            } else {
                let left = room(options, freeBytes: try freeBytes()) - used
                given = min(left, options.kvByteLimit ?? left)
            }
            pages = try KVPageSizes(groups: groups, pageCount: max(given, 0) / pages.pageBytes)
        }
        guard pages.pageCount > 0 else {
            throw MartletError(
                .limitExceeded,
                "\(used) bytes of weights and buffers leave no room for a KV page of \(pages.pageBytes)",
                mend: "Raise --kv-cache-memory, or lower --max-batch-size or --max-num-tokens")
        }
        return pages
    }
}
