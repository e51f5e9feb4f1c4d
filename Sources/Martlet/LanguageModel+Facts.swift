// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCPU
import MartletCUDA
import MartletCore
import MartletEngineFile
public import MartletRuntime

extension LanguageModel {
    /// Tokens of the vocabulary.
    public var vocabularySize: Int { executor.vocabularySize }
    /// Threads that compute; 1 on a GPU, where the host only starts work.
    public var threadCount: Int { cpuExecutor?.threadCount ?? 1 }
    /// Most tokens in a step.
    package var maxTokensPerStep: Int { executor.limits.maxTokens }
    /// Name of the device: the CPU's instruction set, or the GPU's product name.
    public var deviceName: String {
        if let gpu = executor as? CUDAExecutor {
            return "cuda-sm_\(gpu.device.capability) (\(gpu.device.name))"
        }
        return "cpu-\(cpuExecutor?.instructionSet.rawValue ?? "none")"
    }
    /// Bytes of GPU memory that the model has taken; nil on the CPU.
    public var deviceMemoryBytes: Int? { (executor as? CUDAExecutor)?.budget.total }
    /// What the traffic of a step is compared with: `read`s by the model's threads, or `copy`s within the
    /// GPU's memory.
    package var ceilingKind: String { executor is CUDAExecutor ? "copy" : "read" }
    /// Bytes per second that the CPU's threads read, measured.
    package func readCeiling() throws -> Double {
        try CPUProbe(threadCount: threadCount).readBandwidth(passes: 2)
    }
    private var cpuExecutor: CPUExecutor? { executor as? CPUExecutor }
    /// Counts since loading.
    public var statistics: EngineStatistics { inference.statistics }

    private var profilingExecutor: (any ProfilingExecutor)? { executor as? any ProfilingExecutor }
    /// Whether plan steps are timed.
    ///
    /// A GPU then starts kernels one by one, none beside another.
    package var isProfiling: Bool {
        get { profilingExecutor?.isProfiling ?? false }
        set { profilingExecutor?.isProfiling = newValue }
    }
    /// What each step of an entry point's plan took since profiling began.
    package func profile(entryPoint: Int) -> [PlanStepProfile] {
        profilingExecutor?.profile(entryPoint: entryPoint) ?? []
    }

    /// Bytes that one decode step must read: all weights but the embedding's unread rows, and the KV of a request.
    ///
    /// - Parameters:
    ///   - batchSize: Requests in the step.
    ///   - context: Tokens each request has seen on average.
    package func bytesPerStep(batchSize: Int, context: Int) -> Int {
        var read: Set<PlanParameter> = []
        for plan in engine.plans.prefix(1) {
            for step in plan.steps where step.op != "embedding" {
                for operand in step.operands {
                    if case .parameter(let index) = operand, plan.parameters.indices.contains(index)
                    {
                        read.insert(plan.parameters[index])
                    }
                }
            }
        }
        let weights = read.reduce(0) { $0 + (engine.parameters[$1]?.count ?? 0) }
        let kv = engine.plans.first?.kvGroups.reduce(0) { $0 + $1.bytesPerToken } ?? 0
        return weights + kv * context * batchSize
    }
}
