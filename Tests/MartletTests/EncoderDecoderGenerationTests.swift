// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import MartletModels
import MartletReference
import MartletRuntime
import MartletTestSupport
import Testing

/// Requests with an encoder through the engine that serves all others.
@Suite struct EncoderDecoderGenerationTests {
    private let weights = RandomWeights(seed: 21)

    /// The answer of a plain loop over the reference.
    private func answer(_ request: GenerationRequest) throws -> [Int32] {
        let architecture = EncoderDecoder()
        var reference = try ReferenceRunner(
            architecture.entryPoints.map { try architecture.trace($0) }, weights: weights)
        _ = try reference.run([StepPart(0, request.source)], stream: 1)
        var next = request.prompt
        var answer: [Int32] = []
        while answer.count < request.settings.maxTokens {
            let logits = try reference.run([StepPart(0, next)]).floats("logits")
            let last = logits.suffix(logits.count / next.count)
            guard let best = last.indices.max(by: { (last[$0], $1) < (last[$1], $0) }) else {
                break
            }
            next = [Int32(best - last.startIndex)]
            answer += next
        }
        return answer
    }

    /// Several requests at once, sources and prompts of different lengths: greedy answers are the
    /// reference's, with room for all and with room for few.
    @Test(arguments: [64, 9], SchedulingPolicy.allCases)
    func answersAreTheReferences(pages: Int, policy: SchedulingPolicy) throws {
        let architecture = EncoderDecoder()
        let model = try CompiledModel(architecture, weights: weights)
        var options = CPUOptions(
            limits: StepLimits(maxTokens: 24, maxRequests: 3, maxLogitRows: 3, maxContext: 64),
            threadCount: 1)
        options.pageCount = pages
        let executor = try CPUExecutor(
            plans: model.plans, parameters: model.parameters, options: options)
        var choices = InferenceEngine.Options()
        choices.policy = policy
        let engine = try InferenceEngine(executor: executor, options: choices)
        var random = SeededRandom(seed: 5)
        let requests = [(19, 4), (3, 30), (24, 1), (7, 7), (11, 2)].map { source, prompt in
            var request = GenerationRequest(prompt: random.tokens(prompt, below: 80))
            request.source = random.tokens(source, below: 80)
            request.settings.maxTokens = 12
            return request
        }
        let outputs = try engine.generateBatch(requests)
        for (request, output) in zip(requests, outputs) {
            #expect(output.failure == nil)
            #expect(output.tokens == (try answer(request)))
        }
        #expect(engine.statistics.reusedTokenCount == 0)
    }
}
