// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCPU

/// Measures speed.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measures latency, rates and the share of the memory's ceiling.",
        aliases: ["benchmark"])

    @Argument(help: "Model: alias, path, engine file, or owner/name:FILE.")
    var model: String
    @Option(help: "Batch sizes, such as \"1;8\".")
    var batchSize = "1"
    @Option(help: "Prompt and answer lengths, such as \"32,50;128,50\".")
    var inputOutputLen = "32,50"
    @Option(help: "Runs that are not counted.")
    var warmUp = 2
    @Option(help: "Fewest counted runs of each case.")
    var numRuns = 5
    @Option(help: "Fewest seconds of counted runs of each case (classic benchmark.py: 60).")
    var duration = 0.0
    @Option(help: "text, or llama-bench for its columns.")
    var format = "text"
    @Option(name: .customShort("p"), help: "llama-bench: prompt tokens.")
    var promptTokens = 512
    @Option(name: .customShort("n"), help: "llama-bench: generated tokens.")
    var generatedTokens = 128
    @Option(name: .customShort("r"), help: "llama-bench: repetitions.")
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
                .invalidArgument, "--format \(format) is not known", mend: "Use text or llama-bench")
        }
        let form = try TableForm.parse(output)
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        let cases = try BenchCase.parse(batches: batchSize, lengths: inputOutputLen)
        if format == "llama-bench" {
            options.maxContext = limits.maxContext ?? max(promptTokens, generatedTokens) + 2
        } else {
            let longest = cases.map { $0.inputLength + $0.outputLength }.max() ?? 1
            options.maxBatchSize = max(options.maxBatchSize, cases.map(\.batchSize).max() ?? 1)
            options.maxContext = limits.maxContext ?? longest + 1
        }
        let path = try await ModelFinder.path(model)
        let clock = ContinuousClock()
        let start = clock.now
        let loaded = try LanguageModel.load(path, options: options)
        let buildSeconds = (clock.now - start).seconds
        let bench = Bench(model: loaded)
        if format == "llama-bench" {
            let table = try LlamaBench(bench: bench, name: model).run(
                prompt: promptTokens, generated: generatedTokens, repetitions: repetitions)
            Console.line(table.rendered(output == "text" ? .md : form))
            return
        }
        loaded.isProfiling = profile
        var table = Table([
            "batch", "in", "out", "latency ms", "p95 ms", "first token ms", "tokens/s",
            "decode tokens/s", "MB/step", "GB/s", "read GB/s", "share %",
        ])
        for item in cases {
            let result = try bench.run(
                item, warmUp: warmUp, runs: max(1, numRuns), seconds: duration)
            Console.line(result.benchmarkLine(name: model, buildSeconds: buildSeconds))
            table.add(result.row)
        }
        Console.line()
        Console.line(table.rendered(form))
        Console.line(loaded.precisionLine)
        if profile { Console.line(ProfileTable.table(loaded).rendered(form)) }
    }
}

extension Duration {
    /// The duration as a number of seconds.
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
