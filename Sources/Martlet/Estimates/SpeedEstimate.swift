// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
import MartletEngineFile

/// Time that steps of a plan will take on this machine: bytes against the rate of reading,
/// operations against the peak of their kind, whichever takes longer, plan step by plan step.
package struct SpeedEstimate: Sendable {
    /// What limits a plan step.
    private enum Work {
        /// Int8 dot products.
        case int8
        /// f32 multiply-adds.
        case float
        /// Attention: grows with the context; bytes a cached token, operations a pair of tokens.
        case attention(bytes: Int, operations: Int)
        /// Rows that lie in caches.
        case rows
    }

    private let steps: [(cost: KernelCost, work: Work)]
    private let ceilings: MachineCeilings
    private let maxTokens: Int

    /// Share of the peak that the linear kernels reach when they do not wait for memory.
    ///
    /// An assumption, as the two below: not yet fitted to measurements on a quiet machine.
    private static let linearShare = 0.75
    /// Share of the f32 peak that attention reaches.
    private static let attentionShare = 0.3
    /// Share of the reading rate that one-token linears reach.
    private static let readShare = 0.95
    /// Seconds of one plan step beside its work: barriers, and the turn of the step loop.
    private static let stepOverhead = 1.5e-6

    /// Prepares the plan of the decoder.
    package init(
        _ builder: EngineBuilder, _ program: EngineBuilder.Program, ceilings: MachineCeilings
    ) {
        self.ceilings = ceilings
        maxTokens = max(1, builder.options.maxTokensPerStep)
        let plan = program.emitted.plan
        steps = zip(plan.steps, program.emitted.choices).map { step, choice in
            (choice.cost, Self.work(step, plan))
        }
    }

    private static func work(_ step: PlanStep, _ plan: Plan) -> Work {
        switch step.op {
        case "linear": return step.family.hasSuffix("_int8g64") ? .int8 : .float
        case "attention", "cachedAttention":
            guard let index = step.attributes["group"]?.int, plan.kvGroups.indices.contains(index),
                case .buffer(_, _, let columns)? = step.operands.first
            else { return .rows }
            let group = plan.kvGroups[index]
            return .attention(
                bytes: group.bytesPerToken / max(group.layerCount, 1), operations: 4 * columns)
        default: return .rows
        }
    }

    /// Bytes that one step reads for its weights: the working set of decoding.
    package static func weightBytes(_ program: EngineBuilder.Program) -> Int {
        program.emitted.choices.reduce(0) { $0 + ($1.op == "linear" ? $1.cost.bytes.constant : 0) }
    }

    /// Seconds of a step.
    ///
    /// - Parameters:
    ///   - tokens: T.
    ///   - requests: B, each with as many tokens.
    ///   - context: Tokens of each request before the step.
    package func seconds(tokens: Int, requests: Int, context: Int) -> Double {
        let values = Dimension.Values(
            tokens: tokens, requests: requests, logitRows: requests, context: 0)
        let own = Double(tokens) / Double(max(requests, 1))
        // Token i of a request sees the context and i tokens of its own.
        let pairs = Double(tokens) * (Double(context) + (own + 1) / 2)
        return steps.reduce(0) { total, step in
            let bytes = Double(step.cost.bytes.evaluate(values) ?? 0)
            let operations = Double(step.cost.operations.evaluate(values) ?? 0)
            let reading = bytes / (ceilings.bytesPerSecond * Self.readShare)
            let seconds: Double
            switch step.work {
            case .int8:
                seconds = max(reading, operations / (ceilings.int8PerSecond * Self.linearShare))
            case .float:
                seconds = max(reading, operations / (ceilings.floatPerSecond * Self.linearShare))
            case .attention(let bytes, let operations):
                let cached = Double(requests) * (Double(context) + own) * Double(bytes)
                seconds = max(
                    cached / (ceilings.bytesPerSecond * Self.readShare),
                    pairs * Double(operations) / (ceilings.floatPerSecond * Self.attentionShare))
            case .rows: seconds = operations / step.cost.operationsPerSecond
            }
            return total + seconds + Self.stepOverhead
        }
    }

    /// Seconds from the start of a batch to its first tokens, prompts in steps of `maxTokens`.
    package func promptSeconds(requests: Int, length: Int) -> Double {
        var (done, total) = (0, 0.0)
        let all = requests * length
        while done < all {
            let tokens = min(maxTokens, all - done)
            let together = min(requests, max(1, tokens / max(length, 1)))
            // A prompt longer than a step sees its own earlier parts.
            total += seconds(
                tokens: tokens, requests: together, context: length > maxTokens ? done % length : 0)
            done += tokens
        }
        return total
    }

    /// Seconds of all steps after the first tokens.
    package func generationSeconds(requests: Int, input: Int, output: Int) -> Double {
        let stepCount = Double(max(output - 1, 0))
        return stepCount
            * seconds(tokens: requests, requests: requests, context: input + output / 2)
    }
}
