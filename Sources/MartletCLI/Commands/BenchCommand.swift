// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCPU

/// Measures speed.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measures latency, rates and the share of the memory's ceiling.",
        aliases: ["benchmark"])

    @Argument(help: "Model: alias, path, engine file, or owner/name:FILE.")
    var model: String
    @Option(help: "Batch sizes, such as \"1;8\".")
    var batchSize = "1"
    @Option(help: "Prompt and answer lengths, such as \"32,50;128,50\".")
    var inputOutputLen = "32,50"
    @Option(parsing: .unconditional, help: "Runs that are not counted.")
    var warmUp = 2
    @Option(parsing: .unconditional, help: "Fewest counted runs of each case.")
    var numRuns = 5
    @Option(
        parsing: .unconditional,
        help: "Fewest seconds of counted runs of each case (classic benchmark.py: 60).")
    var duration = 0.0
    @Option(help: "text, or llama-bench for its columns.")
    var format = "text"
    @Option(name: .customShort("p"), parsing: .unconditional, help: "llama-bench: prompt tokens.")
    var promptTokens = 512
    @Option(
        name: .customShort("n"), parsing: .unconditional, help: "llama-bench: generated tokens.")
    var generatedTokens = 128
    @Option(name: .customShort("r"), parsing: .unconditional, help: "llama-bench: repetitions.")
    var repetitions = 5
    @Option(help: "text, json, csv or md.")
    var output = "text"
    @Flag(help: "Print time, bytes and operations of each plan step.")
    var profile = false
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions

    func run() async throws {
        guard ["text", "llama-bench"].contains(format) else {
            throw MartletError(
                .invalidArgument, "--format \(format) is not known", mend: "Use text or llama-bench"
            )
        }
        let form = try TableForm.parse(output)
        for (value, least, flag) in [
            (warmUp, 0, "--warm-up"), (numRuns, 1, "--num-runs"), (promptTokens, 0, "-p"),
            (generatedTokens, 0, "-n"), (repetitions, 1, "-r"),
        ] where value < least || value > 1 << 20 {
            throw MartletError(
                .invalidArgument, "\(flag) is \(value), but must be \(least) to \(1 << 20)")
        }
        guard duration >= 0, duration <= 86_400 else {
            throw MartletError(
                .invalidArgument, "--duration is \(duration), but must be 0 to 86400 seconds")
        }
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        // Its build time and memory would be those of another file.
        if limits.retarget == nil { options.retarget = .never }
        let cases = try BenchCase.parse(batches: batchSize, lengths: inputOutputLen)
        if format == "llama-bench" {
            options.maxContext = limits.maxContext ?? max(promptTokens, generatedTokens) + 2
        } else {
            let longest = cases.map { $0.inputLength + $0.outputLength }.max() ?? 1
            options.maxBatchSize = max(options.maxBatchSize, cases.map(\.batchSize).max() ?? 1)
            options.maxContext = limits.maxContext ?? longest
        }
        let path = try await ModelFinder.path(model)
        try modelOptions.checkEffect(on: path)
        let clock = ContinuousClock()
        let start = clock.now
        let loaded = try LanguageModel.load(path, options: options)
        let buildSeconds = (clock.now - start).seconds
        let bench = Bench(model: loaded)
        if format == "llama-bench" {
            let result = try LlamaBench(bench: bench, name: model, path: path).run(
                prompt: promptTokens, generated: generatedTokens, repetitions: repetitions)
            return Console.line(
                form == .json
                    ? result.json.serialized(pretty: true)
                    : result.table.rendered(form == .text ? .md : form))
        }
        loaded.isProfiling = profile
        var table = Table([
            "batch", "in", "out", "latency ms", "p95 ms", "first token ms", "tokens/s",
            "decode tokens/s", "MB/step", "GB/s", "read GB/s", "share %",
        ])
        for item in cases {
            let result = try bench.run(
                item, warmUp: warmUp, runs: max(1, numRuns), seconds: duration)
            let line = result.benchmarkLine(name: model, buildSeconds: buildSeconds)
            // Where the output is for programs, only the table is data.
            if form == .text { Console.line(line) } else { Console.error(line) }
            table.add(result.row)
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
}

extension Duration {
    /// The duration as a number of seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
