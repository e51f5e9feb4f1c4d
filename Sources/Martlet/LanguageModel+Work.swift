// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile

/// Operations that prompts need, 2 for a multiply-add.
package struct PromptWork: Sendable {
    /// Of int8 dot products.
    package var int8 = 0.0
    /// Of f32 arithmetic, attention included.
    package var float = 0.0

    /// All of them.
    package var all: Double { int8 + float }

    /// Time that the densest loops would take.
    package func seconds(at peaks: ComputePeaks) -> Double {
        int8 / peaks.int8 + float / peaks.float
    }
}

/// Operations per second of the densest loops, all threads together.
package struct ComputePeaks: Sendable {
    /// Of int8 dot products.
    package let int8: Double
    /// Of f32 multiply-adds.
    package let float: Double
}

extension LanguageModel {
    /// The rates that prompts are compared with; nil on a GPU.
    ///
    /// - Throws: `MartletError` if this CPU cannot run the kernels.
    package func computePeaks() throws -> ComputePeaks? {
        guard let executor = executor as? CPUExecutor else { return nil }
        let probe = try CPUProbe(
            threadCount: executor.threadCount, instructionSet: executor.instructionSet)
        return ComputePeaks(
            int8: probe.int8Peak(iterations: 5_000_000),
            float: probe.floatPeak(iterations: 5_000_000))
    }

    /// Operations of linears and causal attention for prompts of one length, the head for one row each.
    package func promptWork(batchSize: Int, length: Int) -> PromptWork {
        var work = PromptWork()
        guard let plan = engine.plans.first else { return work }
        let rows = Dimension.Values(
            tokens: batchSize * length, requests: batchSize, logitRows: batchSize,
            context: maxContext)
        for step in plan.steps {
            switch step.op {
            case "linear":
                let operations = Self.linearOperations(step, plan, rows)
                if step.family.hasSuffix("_int8g64") {
                    work.int8 += operations
                } else {
                    work.float += operations
                }
            case "attention", "cachedAttention":
                guard case .buffer(_, _, let columns)? = step.operands.first else { continue }
                let group = step.attributes["group"]?.int ?? 0
                let window =
                    plan.kvGroups.indices.contains(group) ? plan.kvGroups[group].window : nil
                // A token sees itself and those before it: a dot product and a weighted sum.
                let seen = Double(min(length, window ?? length))
                let pairs = seen * (seen + 1) / 2 + (Double(length) - seen) * seen
                work.float += Double(batchSize) * pairs * Double(4 * columns)
            default: continue
            }
        }
        return work
    }

    private static func linearOperations(
        _ step: PlanStep, _ plan: Plan, _ rows: Dimension.Values
    ) -> Double {
        for operand in step.operands {
            guard case .parameter(let index) = operand, plan.parameters.indices.contains(index),
                plan.parameters[index].shape.count == 2,
                case .buffer(let buffer, _, _)? = step.operands.first,
                plan.buffers.indices.contains(buffer)
            else { continue }
            let count = plan.buffers[buffer].rows.evaluate(rows) ?? 0
            return plan.parameters[index].shape.reduce(2.0 * Double(count)) { $0 * Double($1) }
        }
        return 0
    }
}
