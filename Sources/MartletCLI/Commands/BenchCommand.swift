// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCPU
import Synchronization

/// Measures speed.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures latency, rates, memory, and the share of the memory's ceiling.",
        discussion: """
            Without a checkpoint a preset gives the shape of a published model: its random weights \
            are made in memory, directly in the precision asked for.

            --compare measures several precisions, each in a process of its own, and prints the \
            reductions of latency and memory against the first.

            --random or --requests run many requests as they come, instead of one shape at a time; \
            --seed makes the load.
            """,
        aliases: ["benchmark"])

    @OptionGroup var choice: ModelChoice
    @Option(help: "Batch sizes, such as \"1;8\".")
    var batchSize = "1"
    @Option(help: "Prompt and answer lengths, such as \"32,50;128,50\".")
    var inputOutputLen = "32,50"
    @Option(
        parsing: .unconditional,
        help: "Search with this many beams for each answer; first tokens come with the last then.")
    var numBeams = 1
    @Option(parsing: .unconditional, help: "Runs that are not counted.")
    var warmUp = 2
    @Option(parsing: .unconditional, help: "Fewest counted runs of each case.")
    var numRuns = 5
    @Option(
        parsing: .unconditional,
        help: "Fewest seconds of counted runs of each case (classic benchmark.py: 60).")
    var duration = 0.0
    @Option(
        help: """
            Precisions to compare, the first being the measure: keep, none, f32, f16, bf16, or a \
            scheme as for --quantize, such as bf16,int8,int4.
            """)
    var compare: String?
    @Option(
        help: "With --compare: draw the figures into this SVG file.",
        completion: .file(extensions: ["svg"]))
    var chart: String?
    @Option(
        help: "text, or llama-bench for its columns.", completion: .list(["text", "llama-bench"]))
    var format = "text"
    @Option(name: .customShort("p"), parsing: .unconditional, help: "llama-bench: prompt tokens.")
    var promptTokens = 512
    @Option(
        name: .customShort("n"), parsing: .unconditional, help: "llama-bench: generated tokens.")
    var generatedTokens = 128
    @Option(name: .customShort("r"), parsing: .unconditional, help: "llama-bench: repetitions.")
    var repetitions = 5
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @Flag(help: "Print time, bytes and operations of each plan step.")
    var profile = false
    @OptionGroup var load: LoadFlags
    @OptionGroup var scheduling: SchedulingOptions
    @OptionGroup var draw: DrawOptions
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions

    func run() async throws {
        let form = try TableForm.parse(output)
        if load.isGiven { return try await runLoad(form) }
        try checkFlags()
        let cases = try BenchCase.parse(batches: batchSize, lengths: inputOutputLen)
        let found = try await choice.find()
        try checkEffect(on: found)
        if let compare { return try await runComparison(compare, of: found, cases, form) }
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        // Its build time and memory would be those of another file.
        if limits.retarget == nil { options.retarget = .never }
        if format == "llama-bench" {
            options.maxBatchSize = limits.maxBatchSize ?? 1
            options.maxContext = limits.maxContext ?? max(promptTokens, generatedTokens) + 2
        } else {
            BenchCase.size(&options, for: cases, beams: numBeams, limits)
        }
        let copyCeiling = format == "text" ? try options.copyCeiling() : nil
        let watch = BuildWatch(&options)
        let clock = ContinuousClock()
        let start = clock.now
        let loaded = try found.load(options)
        // As the classic line has it: an engine that was built before took no time now.
        var buildSeconds = watch.sawBuild ? (clock.now - start).seconds : 0
        if watch.sawBuild, loaded.engine.path != nil, options.device == .cpu {
            FreshProcess.begin(buildSeconds: buildSeconds)
        }
        buildSeconds = FreshProcess.buildSeconds ?? buildSeconds
        var settings = try draw.settings()
        settings.beamCount = numBeams
        let bench = Bench(model: loaded, settings: settings, copyCeiling: copyCeiling)
        guard format == "text" else {
            let result = try LlamaBench(bench: bench, name: found.name, path: found.path).run(
                prompt: promptTokens, generated: generatedTokens, repetitions: repetitions)
            return Console.line(
                form == .json
                    ? result.json.serialized(pretty: true)
                    : result.table.rendered(form == .text ? .md : form))
        }
        loaded.isProfiling = profile
        var table = Table(BenchResult.columns(loaded, forPrograms: form != .text))
        for item in cases {
            let result = try bench.run(item, warmUp: warmUp, runs: numRuns, seconds: duration)
            let line = result.benchmarkLine(name: found.name, buildSeconds: buildSeconds)
            // Where the output is for programs, only the table is data.
            if form == .text { Console.line(line) } else { Console.error(line) }
            table.add(result.row(forPrograms: form != .text))
        }
        if form == .text { Console.line() }
        let steps = profile ? ProfileTable.table(loaded) : nil
        if form == .json, let steps {
            let both = JSONObject([("cases", table.json), ("steps", steps.json)])
            return Console.line(JSONValue.object(both).serialized(pretty: true))
        }
        Console.line(table.rendered(form))
        if form == .text { Console.line(loaded.precisionLine) }
        if let steps { Console.line("\n" + steps.rendered(form)) }
    }

    private func runLoad(_ form: Table.Form) async throws {
        try load.check()
        try GivenFlags.refuse(
            [
                "--batch-size", "--input-output-len", "--num-beams", "--warm-up", "--num-runs",
                "--duration", "--compare", "--chart", "--format", "-p", "-n", "-r",
            ], "with a load of --random or --requests")
        if profile, try scheduling.policies().count > 1 {
            throw MartletError(
                .invalidArgument, "--profile times the steps of one policy",
                mend: "Give one --policy, or leave --profile out")
        }
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        for policy in try scheduling.policies() {
            try scheduling.apply(to: &options, policy: policy)
        }
        let settings = try draw.settings()
        let found = try await choice.find()
        try OutputFile.checkApart(
            [load.iterationLog, load.timeline], from: [found.file, load.requests])
        try checkEffect(on: found)
        if limits.retarget == nil { options.retarget = .never }
        try LoadBench(
            found: found, flags: load, scheduling: scheduling, limits: limits, settings: settings,
            isProfiling: profile
        ).run(options, form)
    }

    private func checkEffect(on found: ModelChoice.Found) throws {
        if found.isEngine { return try modelOptions.checkEffect(on: found.path) }
        if found.file == nil, modelOptions.device == Device.cpu.rawValue {
            try GivenFlags.refuse(["--no-cache"], "with --preset, whose engine is made in memory")
        }
    }

    private func checkFlags() throws {
        try GivenFlags.refuse(
            LoadFlags.flags + SchedulingOptions.flags, "without a load",
            mend: "Add --random 128,log:16-512 or --requests FILE")
        try draw.refuseWithoutTemperature(["--seed"])
        guard ["text", "llama-bench"].contains(format) else {
            throw MartletError(
                .invalidArgument, "--format \(format) is not known", mend: "Use text or llama-bench"
            )
        }
        for (value, least, flag) in [
            (warmUp, 0, "--warm-up"), (numRuns, 1, "--num-runs"), (numBeams, 1, "--num-beams"),
            (promptTokens, 0, "-p"), (generatedTokens, 0, "-n"), (repetitions, 1, "-r"),
        ] { try LimitOptions.require(value, atLeast: least, atMost: 1 << 20, flag) }
        guard duration >= 0, duration <= 86_400 else {
            throw MartletError(
                .invalidArgument, "--duration is \(duration), but must be 0 to 86400 seconds")
        }
        if format == "llama-bench" {
            try GivenFlags.refuse(
                [
                    "--batch-size", "--input-output-len", "--num-beams", "--warm-up", "--num-runs",
                    "--duration", "--profile",
                ], "with --format llama-bench", mend: "Use its own flags: -p, -n and -r")
            guard promptTokens + generatedTokens > 0 else {
                throw MartletError(
                    .invalidArgument, "-p 0 -n 0 leaves nothing to measure",
                    mend: "Such as -p 512 -n 128")
            }
        } else {
            try GivenFlags.refuse(
                ["-p", "-n", "-r"], "without --format llama-bench",
                mend: "Add it, or use --input-output-len")
        }
        if compare == nil, chart != nil {
            throw MartletError(
                .invalidArgument, "--chart draws a comparison, but nothing is compared",
                mend: "Add --compare bf16,int8,int4")
        }
        if compare != nil {
            try GivenFlags.refuse(["--quantize"], "with --compare, whose words replace it")
        }
        if compare != nil, profile || format != "text" {
            throw MartletError(
                .invalidArgument, "--compare prints one table of its own",
                mend: "Leave --profile and --format out")
        }
    }

    private func runComparison(
        _ words: String, of found: ModelChoice.Found, _ cases: [BenchCase], _ form: Table.Form
    ) async throws {
        guard !found.isEngine else {
            throw MartletError(
                .invalidArgument, "\(found.path) is compiled already, in one precision",
                mend: "Name the checkpoint it was made of")
        }
        if let chart {
            try OutputFile.check(chart)
            try OutputFile.checkApart([chart], from: [found.file])
        }
        let precisions = try BenchPrecision.parse(words)
        let comparison = try await BenchComparison.measure(
            precisions, arguments: Array(CommandLine.arguments.dropFirst()), modelOptions)
        Console.line(comparison.table.rendered(form))
        if let chart {
            let svg = ComparisonChart(title: found.name, comparison).svg
            try OutputFile.write(Array(svg.utf8), to: chart)
            Console.error("\(chart): chart")
        }
    }
}

extension BenchCase {
    /// Makes room for the cases and no more, where the user sets no limits: memory is measured too.
    static func size(
        _ options: inout LoadOptions, for cases: [BenchCase], beams: Int = 1, _ limits: LimitOptions
    ) {
        // Every run computes its whole prompt.
        options.reusesPrefixes = false
        let largest = (cases.map(\.batchSize).max() ?? 1) * beams
        options.maxBatchSize = limits.maxBatchSize ?? largest
        options.maxTokensPerStep = limits.maxNumTokens ?? max(512, largest)
        options.maxContext =
            limits.maxContext ?? (cases.map { $0.inputLength + $0.outputLength }.max() ?? 1)
    }
}

/// Notices whether an engine is built or only loaded.
private final class BuildWatch: Sendable {
    private let saw = Atomic(false)

    /// Listens to the progress of building.
    init(_ options: inout LoadOptions) {
        let show = options.onBuildProgress
        options.onBuildProgress = { [self] text, fraction in
            saw.store(true, ordering: .relaxed)
            show?(text, fraction)
        }
    }

    var sawBuild: Bool { saw.load(ordering: .relaxed) }
}

extension Duration {
    /// The duration as a number of seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
