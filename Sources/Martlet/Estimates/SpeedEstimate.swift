// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCompiler
import MartletCore
import MartletEngineFile

/// Time that steps of a plan will take on this machine: bytes at the rate of reading, and what its
/// kernels take in a trial, plan step by plan step.
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

        var isInt8: Bool { if case .int8 = self { true } else { false } }
    }

    private let steps: [(cost: KernelCost, work: Work, kind: KernelTrial.Kind)]
    private let ceilings: MachineCeilings
    private let trial: KernelTrial?
    private let maxTokens: Int

    /// Share of the reading rate that one-token linears reach where they do nothing else: bf16 weights in
    /// `bench` on two cores, 92 to 100 %.
    private static let readShare = 0.95
    /// Shares of the peaks that linears and attention reach where no trial says better: assumptions.
    private static let linearShare = 0.75, attentionShare = 0.3
    /// Seconds of one plan step beside its work where no trial says better: barriers.
    private static let stepOverhead = 1.5e-6

    /// Prepares the plan of the decoder.
    ///
    /// - Parameter trial: What its kernels were seen to take.
    package init(
        _ builder: EngineBuilder, _ program: EngineBuilder.Program, ceilings: MachineCeilings,
        trial: KernelTrial?
    ) {
        self.ceilings = ceilings
        self.trial = trial
        maxTokens = max(1, builder.options.maxTokensPerStep)
        let plan = program.emitted.plan
        steps = zip(plan.steps, program.emitted.choices).map { step, choice in
            (choice.cost, Self.work(step, plan), KernelTrial.Kind(step, choice.cost))
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

    /// Seconds of reading and computing side by side.
    ///
    /// Neither hides behind the other wholly where both take long: between their maximum and their sum,
    /// as the root of their squares fits what `bench` measured of int8, int4 and bf16 weights.
    private static func overlapping(_ reading: Double, _ computing: Double) -> Double {
        (reading * reading + computing * computing).squareRoot()
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
        return steps.reduce(trial?.overhead ?? 0) { total, step in
            let bytes = Double(step.cost.bytes.evaluate(values) ?? 0)
            let operations = Double(step.cost.operations.evaluate(values) ?? 0)
            let rate = ceilings.bytesPerSecond * Self.readShare
            let tried = trial?.seconds(step.kind, tokens: tokens, requests: requests)
            switch step.work {
            case .int8, .float:
                let peak =
                    step.work.isInt8 ? ceilings.int8PerSecond : ceilings.floatPerSecond
                let assumed = operations / (peak * Self.linearShare) + Self.stepOverhead
                return total + Self.overlapping(bytes / rate, tried ?? assumed)
            case .attention(let bytes, let operations):
                let cached = Double(requests) * (Double(context) + own) * Double(bytes)
                let pair =
                    trial?.secondsPerPair(step.kind)
                    ?? Double(operations) / (ceilings.floatPerSecond * Self.attentionShare)
                return total + max(cached / rate, pairs * pair, tried ?? Self.stepOverhead)
            case .rows:
                let assumed = operations / step.cost.operationsPerSecond + Self.stepOverhead
                return total + (tried ?? assumed)
            }
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
