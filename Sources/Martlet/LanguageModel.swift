// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
import MartletEngineFile
import MartletFormats
public import MartletModels
package import MartletRuntime
package import MartletTokenizer

/// A model ready to answer: compiled, loaded on a device, with its tokenizer.
///
/// ```swift
/// let model = try LanguageModel.load("SmolLM2-135M-Instruct.Q4_1.gguf")
/// for try await piece in try model.stream("Why is the sky blue?") { print(piece, terminator: "") }
/// ```
public final class LanguageModel: Sendable {
    /// The engine that runs.
    package let engine: LoadedEngine
    /// The device.
    package let executor: any PlanExecutor
    /// The request loop.
    package let inference: InferenceEngine
    /// Text to tokens and back; nil without a tokenizer.
    package let tokenizer: Tokenizer?
    /// Longest request, prompt and answer, in tokens.
    public let maxContext: Int

    /// Loads a checkpoint (compiling it, or reusing a cached engine) or an engine file.
    ///
    /// - Parameters:
    ///   - path: A `.gguf` file, a folder with `config.json` and `model.safetensors`, or a `.martlet` engine.
    ///   - options: How it is compiled and run.
    /// - Throws: `MartletError` saying what is wrong and what mends it.
    public static func load(
        _ path: String, options: LoadOptions = LoadOptions()
    ) throws -> LanguageModel {
        try LanguageModel(engine: engine(path, options: options), options: options)
    }

    /// Compiles a model defined in code, in memory.
    ///
    /// - Parameters:
    ///   - architecture: The model.
    ///   - weights: Its weights, such as `RandomWeights`.
    ///   - options: How it is compiled and run.
    /// - Throws: `MartletError` if the model cannot be compiled.
    public static func compile(
        _ architecture: any ModelArchitecture, weights: any WeightProvider,
        options: LoadOptions = LoadOptions()
    ) throws -> LanguageModel {
        let builder = try EngineBuilder(
            architecture: architecture, weights: weights, options: options)
        let source = EngineSource(name: architecture.summary.architecture)
        return try LanguageModel(engine: builder.draft(source).inMemory(), options: options)
    }

    /// The engine for a path: read, reused, or built.
    package static func engine(_ path: String, options: LoadOptions) throws -> LoadedEngine {
        if path.hasSuffix(".martlet") { return try LoadedEngine.open(path, options: options) }
        var options = options
        options.targets = []
        let files = ModelSource.files(of: path)
        let cached = options.engineCache.flatMap { folder in
            options.isCacheable
                ? EngineCache.path(
                    in: folder, files: files, name: FileStatus.name(path), options: options)
                : nil
        }
        if let cached, FileStatus.exists(cached) {
            // A damaged or outdated cached engine is simply built again.
            if let engine = try? LoadedEngine.open(cached, options: options) {
                EngineCache.touch(cached)
                return engine
            }
        }
        let limit = try EngineCache.byteLimit
        let draft = try draft(path, options: options)
        guard let cached, let folder = options.engineCache else { return try draft.inMemory() }
        do {
            try EngineCache.makeFolder(folder)
            try draft.write(to: cached)
            let engine = try LoadedEngine.open(cached, options: options)
            EngineCache.removeEarlierBuilds(of: cached)
            if let limit { EngineCache.trim(folder, to: limit, keeping: cached) }
            return engine
        } catch let error as MartletError where [.io, .notFound].contains(error.code) {
            // No room for the file: the engine still fits memory.
            options.onWarning?("the engine is not kept for the next run: \(error.message)")
            return try draft.inMemory()
        }
    }

    /// An engine of a checkpoint, or of another engine for other targets, before its weights are packed.
    package static func draft(_ path: String, options: LoadOptions) throws -> EngineDraft {
        guard path.hasSuffix(".martlet") else {
            let (builder, source) = try builder(path, options: options)
            return try builder.draft(source)
        }
        return try EngineDraft(
            retargeting: EngineFileReader.open(path),
            to: options.catalogs.named(options.targets), options: options)
    }

    /// The builder of a checkpoint, whose tensors are what the architecture reads.
    package static func builder(
        _ path: String, options: LoadOptions
    ) throws -> (EngineBuilder, EngineSource) {
        let source = try ModelSource.open(path)
        let architecture = try options.architectures.architecture(
            named: source.architectures, source.configuration)
        let weights = CheckpointWeights(source.checkpoint, map: architecture.weightMap)
        try weights.check(architecture)
        let builder = try EngineBuilder(
            architecture: architecture, weights: weights, options: options)
        return (builder, try EngineSource(source))
    }

    /// Puts an engine on the device.
    package init(engine: LoadedEngine, options: LoadOptions) throws {
        self.engine = engine
        let sizes = engine.description.sizes
        maxContext = options.maxContext ?? sizes.maxContext
        guard sizes.maxContext <= 0 || (1...sizes.maxContext).contains(maxContext) else {
            throw MartletError(
                .limitExceeded,
                "a context of \(maxContext) tokens is outside the model's 1 to \(sizes.maxContext)",
                mend: "Lower --max-context (of eval: --context), or the lengths asked for")
        }
        let limits = options.stepLimits(maxContext: maxContext)
        try Self.checkKVMemory(engine, options)
        executor = try options.executor(
            engine, limits: limits,
            cacheBytes: Self.kvBytes(EngineKVGroups(engine.plans), limits))
        tokenizer = try engine.text.tokenizer.map { try Tokenizer($0) }
        var running = InferenceEngine.Options()
        running.reusesPrefixes = options.reusesPrefixes
        running.policy = options.policy
        running.preemption = options.preemption
        running.queueLimit = options.queueLimit
        inference = try InferenceEngine(
            executor: executor, decoding: tokenizer.map(TextDecoding.init), options: running)
        HeapMemory.trim()
    }

    /// Refuses a KV cache that cannot hold one block, or one request of the context asked for.
    private static func checkKVMemory(_ engine: LoadedEngine, _ options: LoadOptions) throws {
        guard let bytes = options.kvCacheMemory, let groups = engine.plans.first?.kvGroups,
            let page = engine.plans.flatMap(\.kvGroups).map(\.bytesPerBlock).max(), page > 0,
            bytes >= 0
        else { return }
        let context = options.maxContext ?? 1
        let needed = KVBudget(
            RequestStreams(groups: groups),
            maxTokens: options.stepLimits(maxContext: context).maxTokens,
            depth: InferenceEngine.Options().stepsInFlight
        ).pageCount(positions: context)
        guard bytes / page < needed else { return }
        throw MartletError(
            .limitExceeded,
            "\(bytes) bytes of KV cache are \(bytes / page) pages of \(page) bytes, but a request of "
                + "\(context) tokens needs \(needed)",
            mend: "Raise --kv-cache-memory to \(needed * page)"
                + (options.maxContext == nil ? "" : " or lower --max-context"))
    }

    deinit { inference.shutdown() }

    /// KV memory for a full batch of full contexts; devices take less where they have less.
    ///
    /// Pages are as large as the engine's largest block; as many are needed as the first entry point,
    /// the one that generates, takes.
    static func kvBytes(_ groups: EngineKVGroups, _ limits: StepLimits) -> Int {
        let page = groups.groups.map(\.bytesPerBlock).max() ?? 0
        let pages = (groups.places.first ?? []).reduce(0) { count, place in
            count + limits.maxContext / max(groups.groups[place].blockSize, 1) + 2
        }
        let wanted = pages.multipliedReportingOverflow(by: page * limits.maxRequests)
        return wanted.overflow ? .max : wanted.partialValue
    }

    /// Tokens that end an answer.
    public var stopTokens: [Int32] { engine.text.stopTokens }
}

extension LoadOptions {
    /// Sizes of the largest step for a context.
    func stepLimits(maxContext: Int) -> StepLimits {
        StepLimits(
            maxTokens: max(1, maxTokensPerStep), maxRequests: max(1, maxBatchSize),
            maxLogitRows: max(1, maxLogitRows ?? maxBatchSize), maxContext: max(1, maxContext))
    }
}

/// The runtime's view of a tokenizer.
struct TextDecoding: TokenDecoding {
    let tokenizer: Tokenizer

    func makeTextStream() -> any TokenTextStream {
        Stream(detokenizer: StreamingDetokenizer(tokenizer))
    }

    struct Stream: TokenTextStream {
        var detokenizer: StreamingDetokenizer

        mutating func append(_ token: Int32) -> String { detokenizer.push(Int(token)) }
        mutating func finish() -> String { detokenizer.finish() }
    }
}
