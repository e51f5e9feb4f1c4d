// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Measures how well a model predicts a text.
struct EvalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Computes the perplexity of a text, as llama-perplexity does.")

    @Argument(help: "Model: alias, path, engine file, or owner/name:FILE.")
    var model: String
    @Option(help: "Text file.")
    var perplexity: String
    @Option(parsing: .unconditional, help: "Tokens of a chunk; the second half of each is counted.")
    var context = 512
    @Option(parsing: .unconditional, help: "Chunks to evaluate (default: all).")
    var chunks: Int?
    @Option(help: "text, json, csv or md.")
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions
    @Option(parsing: .unconditional, help: "Threads (default: one per core).")
    var threads: Int?

    func run() async throws {
        guard context >= 4, context <= 1 << 16 else {
            throw MartletError(.invalidArgument, "--context is \(context), but must be 4 to 65536")
        }
        for (value, flag) in [(chunks, "--chunks"), (threads, "--threads")] {
            if let value, value < 1 {
                throw MartletError(
                    .invalidArgument, "\(flag) is \(value), but must be at least 1")
            }
        }
        let form = try TableForm.parse(output)
        let bytes = try MappedFile.map(perplexity)
        var options = try modelOptions.loadOptions()
        options.maxBatchSize = 1
        options.maxTokensPerStep = min(context, 512)
        options.maxLogitRows = options.maxTokensPerStep
        options.maxContext = context
        options.threadCount = threads
        let path = try await ModelFinder.path(model)
        try modelOptions.checkEffect(on: path)
        let loaded = try LanguageModel.load(path, options: options)
        let text = bytes.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        let result = try Perplexity(context: context, chunkLimit: chunks).evaluate(loaded, text) {
            done, total, value in
            if Console.isInteractive {
                Console.status("\rchunk \(done)/\(total): \(Format.decimal(value, 4))")
            }
        }
        if Console.isInteractive { Console.status("\r\u{1b}[K") }
        var table = Table(["perplexity", "error", "chunks", "tokens", "precision"])
        table.add([
            .double(result.perplexity), .double(result.standardError), .int(result.chunkCount),
            .int(result.tokenCount), .string(loaded.precisionLine),
        ])
        Console.line(table.rendered(form))
    }
}
