// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore
package import MartletEngineFile
import Synchronization

/// Runs plans on the CPU: own dispatcher thread, a team of threads, paged KV in one arena.
///
/// Steps run one after the other, in submission order; two may be under way, so that the host
/// prepares one while the other runs. Results do not depend on the number of threads or on how
/// tokens are grouped into steps.
package final class CPUExecutor: ProfilingExecutor {
    private let core: ExecutorCore
    private let dispatcher: JoinableThread

    /// Loads plans.
    ///
    /// - Parameters:
    ///   - plans: Entry points, in the order that step records count them.
    ///   - parameters: Weights, bytes in the plans' layouts; used in place and kept alive.
    ///   - options: Limits, KV memory, threads.
    /// - Throws: `MartletError` `.corrupt` if a plan is damaged, `.unsupported` if it asks for what
    ///   the CPU does not do, `.limitExceeded` if memory does not suffice.
    package init(plans: [Plan], parameters: ParameterBytes, options: CPUOptions) throws {
        let core = try ExecutorCore(plans: plans, parameters: parameters, options: options)
        let dispatcher = JoinableThread { core.dispatch() }
        guard dispatcher.isRunning else {
            throw MartletError(.device, "the system gives no thread to run steps on")
        }
        self.core = core
        self.dispatcher = dispatcher
    }

    deinit {
        core.stop()
        dispatcher.join()
    }

    package var limits: StepLimits { core.options.limits }
    package var kvGroups: [KVGroup] { core.resources.groups }
    package var groupUses: [[KVGroupUse]] { core.plans.map(\.groups) }
    package var pageCount: Int { core.resources.pages.pageCount }
    package var hostPageCount: Int { core.resources.pages.hostPageCount }
    package var entryPoints: [String] { core.plans.map(\.plan.entryPoint) }
    package var vocabularySize: Int { core.vocabularySize }
    package var embeddingSize: Int { core.plans.map(\.embeddingSize).max() ?? 0 }
    package var stateSlotCount: Int { core.options.stateSlotCount }
    package var maxStepsInFlight: Int { ExecutorCore.maxStepsInFlight }

    /// Threads that run steps.
    package var threadCount: Int { core.team.count }
    /// Instruction set of the kernels.
    package var instructionSet: CPUInstructionSet { core.instructionSet }
    package var profiler: PlanProfiler { core.profiler }
    /// Bytes of one KV page.
    package var pageBytes: Int { core.resources.pages.pageBytes }

    package func submit(
        _ step: StepRecord, outputs: StepOutputs,
        completion: @escaping @Sendable (MartletError?) -> Void
    ) throws {
        try core.submit(step, outputs: outputs, completion: completion)
    }
}
