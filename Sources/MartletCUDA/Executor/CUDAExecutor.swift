// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore
package import MartletEngineFile

/// Runs plans on an NVIDIA GPU: one arena, one stream, two steps under way.
///
/// All memory is taken while loading, from a written budget. Step inputs lie at fixed addresses, so a
/// decode step is one graph launch per bucket of batch sizes; sampled tokens stay on the device for the
/// next step.
package final class CUDAExecutor: ProfilingExecutor {
    private let core: CUDAExecutorCore

    /// Loads plans.
    ///
    /// - Parameters:
    ///   - driver: The driver.
    ///   - plans: Entry points, in the order that step records count them.
    ///   - parameters: Weights, bytes in the plans' layouts; copied to the device.
    ///   - options: Limits, memory, device.
    /// - Throws: `MartletError` `.corrupt` if a plan is damaged, `.unsupported` if it asks for what GPUs
    ///   do not do, `.limitExceeded` if memory does not suffice, `.device` if the driver fails.
    package init(
        _ driver: CUDADriver, plans: [Plan], parameters: ParameterBytes, options: CUDAOptions
    ) throws {
        core = try CUDAExecutorCore(driver, plans: plans, parameters: parameters, options: options)
    }

    deinit { core.stop() }

    package var limits: StepLimits { core.options.limits }
    package var kvGroups: [KVGroup] { core.groups }
    package var groupUses: [[KVGroupUse]] { core.plans.map(\.bound.groups) }
    package var pageCount: Int { core.pages.pageCount }
    package var hostPageCount: Int { core.hostPages?.pageCount ?? 0 }
    package var entryPoints: [String] { core.plans.map(\.bound.plan.entryPoint) }
    package var vocabularySize: Int { core.vocabularySize }
    package var embeddingSize: Int { core.plans.map(\.bound.embeddingSize).max() ?? 0 }
    package var stateSlotCount: Int { core.options.stateSlotCount }
    package var maxStepsInFlight: Int { CUDAExecutorCore.maxStepsInFlight }
    package var spinDuration: Duration { core.options.spinDuration }
    package var nonFiniteMend: String? { core.plans.lazy.compactMap(\.bound.wideningMend).first }

    package var profiler: PlanProfiler { core.profiler }

    /// Bytes of one KV page.
    package var pageBytes: Int { core.pages.pageBytes }
    /// What device memory is used for.
    package var budget: DeviceBudget { core.budget }
    /// The GPU.
    package var device: CUDADevice { core.device }
    /// Steps that ran as a graph, and steps whose kernels were started one by one.
    package var launchCounts: (graphs: Int, plain: Int) { core.launchCounts }

    package func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws { try core.submit(step, outputs: outputs, completion: completion) }
}
