// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
public import MartletRuntime

extension LanguageModel {
    /// Tokens of the vocabulary.
    public var vocabularySize: Int { executor.vocabularySize }
    /// Threads that compute.
    public var threadCount: Int { executor.threadCount }
    /// Name of the device and its instruction set.
    public var deviceName: String { "cpu-\(executor.instructionSet.rawValue)" }
    /// Counts since loading.
    public var statistics: EngineStatistics { inference.statistics }

    /// Whether plan steps are timed.
    package var isProfiling: Bool {
        get { executor.isProfiling }
        set { executor.isProfiling = newValue }
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
