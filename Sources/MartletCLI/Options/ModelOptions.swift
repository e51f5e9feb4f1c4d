// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletBackend
import MartletCompiler
import MartletHub

/// Which model, and how it is compiled: the same flags on every command.
struct ModelOptions: ParsableArguments {
    @Option(help: "Where the model runs: cpu or cuda.", completion: .list(["cpu", "cuda"]))
    var device = "cpu"
    @Option(
        help: "Type of activations: f32, f16 or bf16.", completion: .list(["f32", "f16", "bf16"]))
    var dtype = "f32"
    @Option(
        help: "Linear weights: keep, none, int8, int4, or with a group, such as int4:g64:asym.",
        completion: .list(["keep", "none", "int8", "int4"]))
    var quantize = "keep"
    @Option(
        help: "The embedding: as --quantize.",
        completion: .list(["keep", "none", "int8", "int4"]))
    var quantizeEmbedding = "keep"
    @Option(
        help: """
            The head: as --quantize (default: keep, or the embedding's where they are one). Where it \
            differs from the embedding, each has weights of its own.
            """,
        completion: .list(["keep", "none", "int8", "int4"]))
    var quantizeHead: String?
    @Option(
        help: "Inputs of quantized linears: exact or int8g64 (the CPU's default).",
        completion: .list(["exact", "int8g64"]))
    var activations: String?
    @Option(
        help: "Type of cached keys and values: f32, f16 or bf16.",
        completion: .list(["f32", "f16", "bf16"]))
    var kvDtype = "f32"
    @Option(name: .customLong("disable-rule"), help: "Leave a rewrite rule out; may be repeated.")
    var disabledRules: [String] = []
    @Flag(name: .customLong("no-cache"), help: "Build the engine in memory, keep no file.")
    var noCache = false

    /// The options as the library takes them.
    func loadOptions() throws -> LoadOptions {
        var options = LoadOptions()
        guard let device = Device(rawValue: device) else {
            throw MartletError(
                .invalidArgument, "--device \(device) is not known",
                mend: "Devices: \(Device.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        options.device = device
        options.dtype = try Self.type(dtype, flag: "--dtype")
        options.kvType = try Self.type(kvDtype, flag: "--kv-dtype")
        options.quantize = quantize
        options.quantizeEmbedding = quantizeEmbedding
        options.quantizeHead = quantizeHead
        options.activations = activations
        options.disabledRules = try Set(disabledRules.map { try Self.rule($0, options.catalogs) })
        if noCache { options.engineCache = nil }
        if let folder = options.engineCache { Interrupt.watch(folder: folder) }
        options.onWarning = { Console.error("warning: \($0)") }
        let meter = BuildMeter()
        options.onBuildProgress = { meter.show($0, $1) }
        return options
    }

    /// Refuses flags that decide how a model is compiled where it already is.
    ///
    /// - Parameters:
    ///   - path: The model.
    ///   - runs: Whether it is run or built anew: then `--activations` has it planned again.
    /// - Throws: `MartletError` `.invalidArgument` naming the flag.
    func checkEffect(on path: String, runs: Bool = true) throws {
        guard path.hasSuffix(".martlet") else { return }
        // A GPU's kernels are kept beside the engines that were built.
        if device == Device.cpu.rawValue {
            try GivenFlags.refuse(["--no-cache"], "on an engine file, which is built already")
        }
        let others = ["--device", "--no-cache"] + (runs ? ["--activations"] : [])
        guard let flag = GivenFlags.first(of: Self.flags.filter { !others.contains($0) }) else {
            return
        }
        throw MartletError(
            .invalidArgument, "\(path) is compiled already, \(flag) cannot change it",
            mend: "Build another engine: martlet build MODEL \(flag) ... -o FILE.martlet")
    }

    /// A rule of any device at hand; those that the chosen ones do not have are refused when they compile.
    private static func rule(_ name: String, _ catalogs: CatalogList) throws -> String {
        guard !Pipeline.knownRules(for: catalogs.all).contains(name) else { return name }
        let known = Pipeline.knownRules(for: [catalogs.device])
        throw MartletError(
            .invalidArgument, "there is no rule named '\(name)'",
            mend: EditDistance.nearest(name, among: known).map { "Did you mean '\($0)'?" }
                ?? "Rules: \(known.joined(separator: ", "))")
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
    @Option(
        parsing: .unconditional,
        help: """
            Most requests in one step (default: 8; bench: its largest batch, of a load \
            --concurrency up to 256, else 16; or --max-num-tokens where that is less).
            """)
    var maxBatchSize: Int?
    @Option(
        parsing: .unconditional,
        help: "Most tokens in one step (default: 512, or --max-batch-size where that is more).")
    var maxNumTokens: Int?
    @Option(
        parsing: .unconditional,
        help: "Longest request, prompt and answer, in tokens (default: the model's).")
    var maxContext: Int?
    @Option(
        parsing: .unconditional,
        help: "Memory for cached keys and values, such as 2GB (default: what the batch needs).")
    var kvCacheMemory: String?
    @Option(
        parsing: .unconditional,
        help: """
            Part of a GPU's free memory that may be used without --kv-cache-memory (default: 0.9).
            """)
    var memoryFraction: Double?
    @Option(
        parsing: .unconditional,
        help: "Run on a GPU the code of an older one, translated by the driver: 80 or 90.")
    var forceSm: Int?
    @Flag(
        help: """
            The same tokens for the same seed whatever the batch, the prompt's chunks and the prefix cache: one \
            kernel per operation on a GPU (the CPU's always are).
            """)
    var deterministic = false
    @Option(parsing: .unconditional, help: "Threads (default: one per core).")
    var threads: Int?
    @Option(
        help: "Instruction set to force: scalar, avx2, avx512 or neon.",
        completion: .list(["scalar", "avx2", "avx512", "neon"]))
    var isa: String?
    @Option(
        help: """
            An engine built for another device: auto compiles it again in memory, never stops with \
            the command that makes one for this device (default: auto; bench: never).
            """,
        completion: .list(RetargetPolicy.allCases.map(\.rawValue)))
    var retarget: String?

    /// Refuses a count outside its range.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming flag, value and range.
    static func require(
        _ value: Int?, atLeast least: Int, atMost most: Int = 1 << 24, _ flag: String
    ) throws {
        guard let value, value < least || value > most else { return }
        throw MartletError(
            .invalidArgument, "\(flag) is \(value), but must be \(least) to \(most)")
    }

    private func applyGPU(to options: inout LoadOptions) throws {
        for (flag, isGiven) in [
            ("--memory-fraction", memoryFraction != nil), ("--force-sm", forceSm != nil),
        ] where isGiven && options.device != .cuda {
            throw MartletError(
                .invalidArgument, "\(flag) has no effect on the CPU",
                mend: "Leave it out, or add --device cuda")
        }
        if let memoryFraction {
            guard memoryFraction > 0, memoryFraction <= 1 else {
                throw MartletError(
                    .invalidArgument,
                    "--memory-fraction is \(memoryFraction), but must be above 0 and at most 1")
            }
            options.memoryFraction = memoryFraction
        }
        if let forceSm {
            guard [80, 90].contains(forceSm) else {
                throw MartletError(
                    .invalidArgument, "there is no code to translate for --force-sm \(forceSm)",
                    mend: "Use 80 or 90")
            }
            options.gpuArchitecture = "compute_\(forceSm)"
        }
    }

    /// Adds the limits.
    func apply(to options: inout LoadOptions) throws {
        try Self.require(maxBatchSize, atLeast: 1, "--max-batch-size")
        try Self.require(maxNumTokens, atLeast: 1, "--max-num-tokens")
        try Self.require(maxContext, atLeast: 1, "--max-context")
        try Self.require(threads, atLeast: 1, "--threads")
        if let maxBatchSize, let maxNumTokens, maxNumTokens < maxBatchSize {
            // Each request of a step has at least one token in it.
            throw MartletError(
                .invalidArgument,
                "--max-num-tokens \(maxNumTokens) is less than --max-batch-size \(maxBatchSize)",
                mend: "Raise --max-num-tokens to \(maxBatchSize) or lower --max-batch-size")
        }
        try applyGPU(to: &options)
        options.maxBatchSize = maxBatchSize ?? min(8, maxNumTokens ?? 8)
        options.maxTokensPerStep = maxNumTokens ?? max(512, options.maxBatchSize)
        options.maxContext = maxContext
        options.isDeterministic = deterministic
        options.threadCount = threads
        options.instructionSet = isa
        if let retarget {
            guard let policy = RetargetPolicy(rawValue: retarget) else {
                throw MartletError(
                    .invalidArgument, "--retarget \(retarget) is not known",
                    mend: "Use auto or never")
            }
            options.retarget = policy
        }
        if let kvCacheMemory {
            let digits = kvCacheMemory.prefix { $0.isNumber || $0 == "." }
            // What is no size, but with a small number would be one, is too large.
            if let number = Double(digits), number > 1, ByteCount.parse(kvCacheMemory) == nil,
                ByteCount.parse("1" + kvCacheMemory.dropFirst(digits.count)) != nil
            {
                throw MartletError(
                    .limitExceeded,
                    "--kv-cache-memory \(kvCacheMemory) is beyond the limit of 1000000 TB")
            }
            guard let bytes = ByteCount.parse(kvCacheMemory), bytes > 0 else {
                throw MartletError(
                    .invalidArgument, "--kv-cache-memory \(kvCacheMemory) is no size",
                    mend: "Write it as 512MB or 2GiB")
            }
            options.kvCacheMemory = bytes
        }
    }
}
