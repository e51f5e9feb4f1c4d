// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCUDA
import MartletCore
import MartletEngineFile

/// What a model takes of a GPU's memory, and how many requests of what length it leaves room for: reckoned from the
/// plans, with nothing loaded and no GPU needed.
package struct GPUEstimate: Sendable {
    /// The GPU.
    package let chip: GPUChip
    /// The engine's budget.
    package let memory: MartletCUDA.MemoryPlan
    private let modelContext: Int

    /// Compiles nothing more: reads what the builder made.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if not one KV page fits.
    package init(
        _ builder: EngineBuilder, _ programs: [EngineBuilder.Program], chip: GPUChip
    ) throws {
        let (options, plans) = (builder.options, programs.map(\.emitted.plan))
        modelContext = builder.architecture.summary.maxContext
        let limits = options.stepLimits(maxContext: options.maxContext ?? modelContext)
        let architecture =
            options.gpuArchitecture.map { chip.running(KernelArchitecture($0)) }
            ?? chip.architecture
        try architecture.require(capability: chip.architecture.capability, of: chip.name)
        self.chip = chip
        memory = try MartletCUDA.MemoryPlan(
            plans,
            options: options.cudaOptions(
                limits: limits, cacheBytes: LanguageModel.kvBytes(EngineKVGroups(plans), limits)),
            architecture: architecture, freeBytes: chip.freeByteCount)
    }

    /// Pages that a request of so many tokens takes.
    private func pages(context: Int) -> Int {
        memory.groups.reduce(0) { total, group in
            let tokens = group.window.map { min(context, $0 + group.blockSize) } ?? context
            return total + (tokens + group.blockSize - 1) / group.blockSize
        }
    }

    /// Requests of so many tokens that some pages hold at once.
    package func requests(context: Int, pages: Int) -> Int {
        pages / max(self.pages(context: max(context, 1)), 1)
    }

    /// Most tokens of each of some requests that some pages hold at once.
    ///
    /// - Returns: At most what the model was made for; 0 where not even one token fits.
    package func context(requests: Int, pages: Int) -> Int {
        var (least, most) = (0, modelContext > 0 ? modelContext : 1 << 24)
        while least < most {
            let middle = (least + most + 1) / 2
            if self.pages(context: middle) * max(requests, 1) <= pages {
                least = middle
            } else {
                most = middle - 1
            }
        }
        return least
    }

    /// Tokens that the model was made for; 0 if it says nothing.
    package var contextOfModel: Int { modelContext }
}
