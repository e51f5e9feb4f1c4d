// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCompiler
public import MartletCore
public import MartletModels
public import MartletRuntime

/// How a model is compiled and run.
public struct LoadOptions: Sendable {
    // What is compiled: part of the engine's identity.

    /// Type of activations.
    public var dtype: DType = .f32
    /// Linear weights: `keep`, `none`, or a scheme such as `int8`, `int4`, `int4:g64:asym`.
    public var quantize = "keep"
    /// The embedding table: as `quantize`.
    public var quantizeEmbedding = "keep"
    /// The head: as `quantize`; nil for the embedding's where they are one, else as stored.
    public var quantizeHead: String?
    /// Inputs of linears with coded weights: nil for the backend's default, `exact`, or a format such as `int8g64`.
    public var activations: String?
    /// Type of cached keys and values.
    public var kvType: DType = .f32
    /// Where the model runs.
    public var device = Device.cpu { didSet { updateCatalogs() } }
    /// Chips that engines for GPUs hold kernels for, such as `sm_90a`; none are compiled where they run.
    public var gpuCode: [String] = [] { didSet { updateCatalogs() } }
    /// Targets that can be compiled for; the first is the device at hand.
    package var catalogs = CatalogList.builtIn
    /// Targets of an engine that is built; none stands for the device at hand.
    public var targets: [String] = []
    /// What happens to an engine that was not built for the device at hand.
    public var retarget = RetargetPolicy.auto
    /// Architectures that checkpoints may name.
    public var architectures = ModelRegistry.builtIn
    /// Rewrite rules of the user's own.
    public var rules: [RewriteRule] = []
    /// Built-in rules to leave out.
    public var disabledRules: Set<String> = []
    /// Module paths whose values become outputs; `*` stands for any run of characters.
    public var taps: [String] = []

    // How it is run.

    /// Most requests in a step.
    public var maxBatchSize = 8
    /// Most tokens in a step.
    public var maxTokensPerStep = 512
    /// Most rows with logits in a step; nil for one per request.
    public var maxLogitRows: Int?
    /// Longest request, prompt and answer; nil for what the model was made for.
    public var maxContext: Int?
    /// Bytes for cached keys and values; nil for what the batch needs, at most a quarter of memory.
    public var kvCacheMemory: Int?
    /// Part of a GPU's free memory that may be used where no size is given.
    public var memoryFraction = 0.9
    /// GPU code to run, such as `compute_80`; nil for the GPU's own.
    public var gpuArchitecture: String?
    /// Whether a GPU's kernels are the same whatever else is in a step, so that a request's tokens depend on itself
    /// alone; on the CPU they always do.
    public var isDeterministic = false
    /// Whether a prompt's beginning that an earlier request computed is not computed again.
    public var reusesPrefixes = true
    /// Which waiting requests may start.
    public var policy = SchedulingPolicy.guaranteedNoEvict
    /// What becomes of cached keys and values of a request that is paused, under `maxUtilization`.
    ///
    /// Where they may be swapped the host's memory holds as many again as the cache; of a GPU's as many as
    /// fit a quarter of the host's memory.
    public var preemption = PreemptionMode.automatic
    /// Most requests that wait for a row of the batch; more are refused.
    ///
    /// Batches wait in any number.
    public var queueLimit = 4096
    /// Threads; nil for one per core.
    public var threadCount: Int?
    /// Instruction set to force, such as `scalar` or `avx2`; nil for the best.
    public var instructionSet: String?
    /// Folder of cached engines; nil compiles in memory every time.
    public var engineCache: String? = EngineCache.defaultFolder
    /// Called with a line for people and the finished fraction while an engine is built.
    public var onBuildProgress: (@Sendable (String, Double) -> Void)?
    /// Called with a line for people when something did not work that is no reason to stop.
    public var onWarning: (@Sendable (String) -> Void)?

    /// The defaults.
    public init() {}

    private mutating func updateCatalogs() {
        catalogs = device.catalogs(gpuCode: gpuCode, engineCache: engineCache)
    }
}
