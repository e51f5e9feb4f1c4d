// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import MartletEngineFile
import MartletRuntime

/// What a plan's kernels take on this machine where memory does not hold them back: one layer of the
/// plan is run with empty weights.
///
/// Layers that are alike take the same time, so one stands for all. No weight is made or read: all
/// parameters are one run of zeros, which the system never gives memory to. On the CPU only.
package struct KernelTrial: Sendable {
    /// What tells plan steps apart that take different times: layers only differ in their number.
    struct Kind: Hashable {
        private let path: String
        private let family: String
        private let cost: KernelCost

        init(_ step: PlanStep, _ cost: KernelCost) {
            path = step.path.split(separator: ".").map { Int($0) == nil ? String($0) : "*" }
                .joined(separator: ".")
            family = step.family
            self.cost = cost
        }
    }

    /// Seconds of each kind in a step of so many tokens.
    private struct Point {
        let tokens: Int
        let seconds: [Kind: Double]
    }

    /// Steps with one token of each request.
    private var decoding: [Point] = []
    /// Steps with several tokens of one request.
    private var prompts: [Point] = []
    /// Seconds of a step beside its plan steps: scheduling, sampling parameters, the turn of the loop.
    private(set) var overhead = 0.0

    /// Most tokens of a prompt that is tried: kernels have reached their rate there.
    private static let promptLimit = 128
    private static let repetitions = 4
    private static let decodingSteps = 8

    /// Runs the trial.
    ///
    /// - Parameters:
    ///   - builder: The model with its options.
    ///   - program: Its decoder.
    ///   - batchSizes: Requests of decoding steps.
    ///   - promptLengths: Tokens of steps that compute prompts.
    /// - Throws: What loading a plan throws.
    package init(
        _ builder: EngineBuilder, _ program: EngineBuilder.Program, batchSizes: [Int],
        promptLengths: [Int]
    ) throws {
        guard builder.options.device == .cpu else { return }
        let prompts = Set(promptLengths.map { min($0, Self.promptLimit) }.filter { $0 > 1 })
        let requests = Set(batchSizes.map { max($0, 1) })
        let (plan, kinds) = Self.oneLayer(program)
        var options = builder.options
        options.engineCache = nil
        options.reusesPrefixes = false
        options.maxBatchSize = requests.max() ?? 1
        options.maxContext = max(prompts.max() ?? 1, Self.decodingSteps) + 2
        options.kvCacheMemory = nil
        let engine = LoadedEngine(
            plans: [plan], parameters: Self.zeros(builder, program),
            description: Self.description(builder), path: nil, text: TextDescription())
        let model = try LanguageModel(engine: engine, options: options)
        guard let executor = model.executor as? CPUExecutor else { return }
        executor.isProfiling = true
        for count in requests.sorted() {
            let point = try Self.run(model, executor, kinds, requests: count, length: 1)
            overhead = max(overhead, point.overhead)
            decoding.append(point.point)
        }
        for length in prompts.sorted() {
            self.prompts.append(
                try Self.run(model, executor, kinds, requests: 1, length: length).point)
        }
    }

    /// What loading asks an engine for.
    private static func description(_ builder: EngineBuilder) -> EngineDescription {
        let (summary, options) = (builder.architecture.summary, builder.options)
        return EngineDescription(
            builderVersion: EngineBuilder.version, modelName: "trial",
            architecture: summary.architecture,
            sizes: EngineSizes(
                hiddenSize: summary.hiddenSize, intermediateSize: summary.intermediateSize,
                layerCount: summary.layerCount, headCount: summary.headCount,
                kvHeadCount: summary.kvHeadCount, headDim: summary.headDim,
                vocabularySize: summary.vocabularySize, maxContext: 0, parameterCount: 0),
            precision: EnginePrecision(
                dtype: options.dtype.rawValue, weights: "", activations: "",
                kvDType: options.kvType.rawValue))
    }

    /// The plan without its layers but the first, and what its steps are.
    private static func oneLayer(_ program: EngineBuilder.Program) -> (Plan, [Kind]) {
        func layer(_ step: PlanStep) -> Int? {
            step.path.split(separator: ".").lazy.compactMap { Int($0) }.first
        }
        var plan = program.emitted.plan
        let first = plan.steps.compactMap(layer).min()
        let kept = zip(plan.steps, program.emitted.choices).filter { step, _ in
            layer(step) == nil || layer(step) == first
        }
        plan.steps = kept.map(\.0)
        return (plan, kept.map { Kind($0, $1.cost) })
    }

    /// All parameters, each the beginning of the same zeros.
    private static func zeros(
        _ builder: EngineBuilder, _ program: EngineBuilder.Program
    ) -> ParameterBytes {
        let sizes = program.emitted.parameters.map { request in
            builder.catalog.packedByteCount(
                layout: request.layout, format: request.format, shape: request.shape) ?? 0
        }
        let zeros = ByteView(count: sizes.max() ?? 0) { _ in }
        var parameters: ParameterBytes = [:]
        for (request, size) in zip(program.emitted.parameters, sizes) {
            parameters[request.parameter] = zeros.slice(0, count: size)
        }
        return parameters
    }

    /// The mean of some runs, as `bench` takes it.
    private static func run(
        _ model: LanguageModel, _ executor: CPUExecutor, _ kinds: [Kind], requests: Int,
        length: Int
    ) throws -> (point: Point, overhead: Double) {
        var settings = SamplingSettings()
        settings.maxTokens = length == 1 ? decodingSteps : 1
        let request = GenerationRequest(
            prompt: [Int32](repeating: 0, count: length), settings: settings)
        let list = [GenerationRequest](repeating: request, count: requests)
        func once() throws {
            for output in try model.generateBatch(list) {
                if let failure = output.failure { throw failure }
            }
        }
        try once()
        executor.resetProfile()
        let clock = ContinuousClock()
        let start = clock.now
        for _ in 0..<repetitions { try once() }
        let total = (clock.now - start) / .seconds(1)
        let profile = executor.profile(entryPoint: 0)
        let runs = Double(max(profile.first?.runCount ?? 0, 1))
        let inside = profile.reduce(0) { $0 + Double($1.nanoseconds) * 1e-9 }
        var seconds: [Kind: Double] = [:]
        for (step, kind) in zip(profile, kinds) {
            seconds[kind] = Double(step.nanoseconds) * 1e-9 / runs
        }
        return (Point(tokens: requests * length, seconds: seconds), max(total - inside, 0) / runs)
    }
}

extension KernelTrial {
    /// Seconds of a plan step of a kind, whatever it reads being in the caches; nil for a kind that the
    /// trial did not meet.
    ///
    /// - Parameters:
    ///   - tokens: T.
    ///   - requests: B.
    func seconds(_ kind: Kind, tokens: Int, requests: Int) -> Double? {
        let points = tokens > requests && !prompts.isEmpty ? prompts : decoding
        let nearest = points.min { abs($0.tokens - tokens) < abs($1.tokens - tokens) }
        guard let nearest, let seconds = nearest.seconds[kind] else { return nil }
        return seconds * max(1, Double(tokens) / Double(nearest.tokens))
    }

    /// Seconds that attention takes for a token and one that it sees; nil for an unknown kind.
    func secondsPerPair(_ kind: Kind) -> Double? {
        guard let longest = prompts.last ?? decoding.last, let all = longest.seconds[kind] else {
            return nil
        }
        return all * 2 / Double(longest.tokens * (longest.tokens + 1))
    }
}
