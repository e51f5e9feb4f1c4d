// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

/// Which model, and how it is compiled: the same flags on every command.
struct ModelOptions: ParsableArguments {
    @Option(help: "Type of activations: f32, f16 or bf16.")
    var dtype = "f32"
    @Option(
        help: "Linear weights: keep, none, int8, int4, or with a group, such as int4:g64:asym.")
    var quantize = "keep"
    @Option(help: "The embedding (and the head where they are one): as --quantize.")
    var quantizeEmbedding = "keep"
    @Option(help: "The head: as --quantize.")
    var quantizeHead = "keep"
    @Option(help: "Inputs of quantized linears: exact or int8g64 (the CPU's default).")
    var activations: String?
    @Option(help: "Type of cached keys and values: f32, f16 or bf16.")
    var kvDtype = "f32"
    @Option(name: .customLong("disable-rule"), help: "Leave a rewrite rule out; may be repeated.")
    var disabledRules: [String] = []
    @Flag(name: .customLong("no-cache"), help: "Build the engine in memory, keep no file.")
    var noCache = false

    /// The options as the library takes them.
    func loadOptions() throws -> LoadOptions {
        var options = LoadOptions()
        options.dtype = try Self.type(dtype, flag: "--dtype")
        options.kvType = try Self.type(kvDtype, flag: "--kv-dtype")
        options.quantize = quantize
        options.quantizeEmbedding = quantizeEmbedding
        options.quantizeHead = quantizeHead
        options.activations = activations
        options.disabledRules = Set(disabledRules)
        if noCache { options.engineCache = nil }
        if let folder = options.engineCache { Interrupt.watch(folder: folder) }
        options.onWarning = { Console.error("warning: \($0)") }
        let meter = BuildMeter()
        options.onBuildProgress = { meter.show($0, $1) }
        return options
    }

    /// Refuses flags that decide how a model is compiled where it already is.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the flag.
    func checkEffect(on path: String) throws {
        guard path.hasSuffix(".martlet") else { return }
        let flags = [
            ("--dtype", dtype != "f32"), ("--quantize", quantize != "keep"),
            ("--quantize-embedding", quantizeEmbedding != "keep"),
            ("--quantize-head", quantizeHead != "keep"), ("--activations", activations != nil),
            ("--kv-dtype", kvDtype != "f32"), ("--disable-rule", !disabledRules.isEmpty),
        ]
        guard let flag = flags.first(where: \.1)?.0 else { return }
        throw MartletError(
            .invalidArgument, "\(path) is compiled already, \(flag) cannot change it",
            mend: "Build another engine: martlet build MODEL \(flag) ... -o FILE.martlet")
    }

    private static func type(_ text: String, flag: String) throws -> DType {
        let names = ["float32": "f32", "float16": "f16", "bfloat16": "bf16"]
        guard let type = DType(rawValue: names[text] ?? text), [.f32, .f16, .bf16].contains(type)
        else {
            throw MartletError(.invalidArgument, "\(flag) \(text) is not f32, f16 or bf16")
        }
        return type
    }
}

/// How large a batch and a context the engine is loaded for.
struct LimitOptions: ParsableArguments {
    @Option(parsing: .unconditional, help: "Most requests in one step.")
    var maxBatchSize = 8
    @Option(parsing: .unconditional, help: "Most tokens in one step.")
    var maxNumTokens = 512
    @Option(
        parsing: .unconditional,
        help: "Longest request, prompt and answer, in tokens (default: the model's).")
    var maxContext: Int?
    @Option(help: "Memory for cached keys and values, such as 2GB (default: what the batch needs).")
    var kvCacheMemory: String?
    @Option(parsing: .unconditional, help: "Threads (default: one per core).")
    var threads: Int?
    @Option(help: "Instruction set to force: scalar, avx2, avx512 or neon.")
    var isa: String?

    /// Adds the limits.
    func apply(to options: inout LoadOptions) throws {
        func positive(_ value: Int?, _ flag: String) throws {
            if let value, value < 1 || value > 1 << 24 {
                throw MartletError(
                    .invalidArgument, "\(flag) is \(value), but must be 1 to \(1 << 24)")
            }
        }
        try positive(maxBatchSize, "--max-batch-size")
        try positive(maxNumTokens, "--max-num-tokens")
        try positive(maxContext, "--max-context")
        try positive(threads, "--threads")
        options.maxBatchSize = maxBatchSize
        options.maxTokensPerStep = max(maxNumTokens, maxBatchSize)
        options.maxContext = maxContext
        options.threadCount = threads
        options.instructionSet = isa
        if let kvCacheMemory {
            guard let bytes = Format.byteCount(kvCacheMemory) else {
                throw MartletError(
                    .invalidArgument, "--kv-cache-memory \(kvCacheMemory) is no size",
                    mend: "Write it as 512MB or 2GiB")
            }
            options.kvCacheMemory = bytes
        }
    }
}

/// Finds models, pulling what is missing.
enum ModelFinder {
    /// The hub; what pip says is shown unless the user wants quiet.
    static func hub(isQuiet: Bool) -> Hub {
        var configuration = HubConfiguration()
        configuration.showsChildOutput = !isQuiet
        return Hub(configuration: configuration)
    }

    /// Path of a model that a user named.
    static func path(_ name: String) async throws -> String {
        let hub = hub(isQuiet: false)
        let reference = try hub.reference(name)
        if let path = try hub.lookup(reference) { return path }
        let terminal = PullTerminal(style: PullTerminal.standardStyle())
        return try await hub.resolve(reference, observe: terminal.observer)
    }
}
