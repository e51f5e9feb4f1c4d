// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Measures how good a model's predictions and answers are.
struct EvalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract: "Measures quality: perplexity, divergence from another engine, ROUGE.",
        discussion: """
            --perplexity FILE: how well the model predicts a text, as llama-perplexity computes it. \
            With --against OTHER also how far its predictions are from OTHER's: KL divergence and \
            the share of positions with the same likeliest token.

            --rouge FILE.jsonl: how near answers are to references, as the Python package \
            rouge_score computes it. Each line is an object with "reference" (or "references", a \
            list) and "prompt", which the model answers, or "prediction", which is scored as it is. \
            MODEL may be - where every line has a prediction.
            """)

    @Argument(
        help: "Model: alias, path, engine file, or owner/name:FILE.",
        completion: ModelFinder.completion)
    var model: String
    @Option(help: "Text file to predict.", completion: .file())
    var perplexity: String?
    @Option(
        help: "Model or engine to compare predictions with.", completion: ModelFinder.completion)
    var against: String?
    @Option(parsing: .unconditional, help: "Tokens of a chunk; the second half of each is counted.")
    var context = 512
    @Option(parsing: .unconditional, help: "Chunks to evaluate (default: all).")
    var chunks: Int?
    @Option(help: "Samples to answer and score.", completion: .file(extensions: ["jsonl"]))
    var rouge: String?
    @Flag(help: "Cut words down to their stems before they are compared.")
    var stemmer = false
    @Flag(help: "Take prompts as they are, without the chat template.")
    var raw = false
    @Option(
        parsing: .unconditional, help: "Exit code 1 where ROUGE-1 is below, such as 15 (percent).")
    var minRouge1: Double?
    @Flag(help: "One row for each sample, with the answer.")
    var details = false
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions
    @OptionGroup var sampling: SamplingOptions

    func run() async throws {
        let form = try TableForm.parse(output)
        try LimitOptions.require(context, atLeast: 4, atMost: 1 << 16, "--context")
        try LimitOptions.require(chunks, atLeast: 1, "--chunks")
        if let minRouge1, !(0...100).contains(minRouge1) {
            throw MartletError(
                .invalidArgument, "--min-rouge1 is \(minRouge1), but must be 0 to 100")
        }
        switch (perplexity, rouge) {
        case (let file?, nil):
            guard minRouge1 == nil, !stemmer, !details else {
                throw MartletError(
                    .invalidArgument, "--min-rouge1, --stemmer and --details belong to --rouge")
            }
            try GivenFlags.refuse(
                SamplingOptions.flags + ["--raw", "--max-context", "--max-batch-size"],
                "with --perplexity, which predicts chunks of --context tokens one by one")
            try await predict(file, form)
        case (nil, let file?):
            guard against == nil else {
                throw MartletError(.invalidArgument, "--against belongs to --perplexity FILE")
            }
            try GivenFlags.refuse(["--context", "--chunks"], "with --rouge")
            try await score(file, form)
        case (nil, nil):
            throw MartletError(
                .invalidArgument, "there is nothing to measure",
                mend: "Give --perplexity FILE or --rouge FILE.jsonl")
        default:
            throw MartletError(
                .invalidArgument, "--perplexity and --rouge exclude each other",
                mend: "Give one of them")
        }
    }

    // Predictions.

    private func load(_ name: String, isBase: Bool) async throws -> LanguageModel {
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        options.maxBatchSize = 1
        options.maxTokensPerStep = min(context, limits.maxNumTokens ?? 512)
        options.maxLogitRows = options.maxTokensPerStep
        options.maxContext = context
        let path = try await ModelFinder.path(name)
        // Precisions asked for are the model's under test; what it is compared with stays as it is.
        if isBase { return try LanguageModel.load(path, options: options.asPublished) }
        try modelOptions.checkEffect(on: path)
        return try LanguageModel.load(path, options: options)
    }

    private func predict(_ file: String, _ form: Table.Form) async throws {
        let text = try TextFile.read(file)
        let loaded = try await load(model, isBase: false)
        let meter = ProgressMeter("chunks", total: 1)
        guard let against else {
            let result = try Perplexity(context: context, chunkLimit: chunks)
                .evaluate(loaded, text) { done, total, value in
                    ProgressMeter("chunks", total: total).show(done, Format.decimal(value, 4))
                }
            meter.clear()
            var table = Table(["perplexity", "error", "chunks", "tokens", "precision"])
            table.add([
                .double(result.perplexity), .double(result.standardError),
                .int(result.chunkCount), .int(result.tokenCount), .string(loaded.precisionLine),
            ])
            return Console.line(table.rendered(form))
        }
        let base = try await load(against, isBase: true)
        let (result, count) = try Perplexity(context: context, chunkLimit: chunks)
            .compare(loaded, with: base, text) { done, total, value in
                ProgressMeter("chunks", total: total).show(done, Format.decimal(value, 6))
            }
        meter.clear()
        Console.error("model: \(loaded.precisionLine)")
        Console.error("base:  \(base.precisionLine)")
        Console.line(DivergenceTable.table(result, chunkCount: count).rendered(form))
    }

    // Answers.

    private func score(_ file: String, _ form: Table.Form) async throws {
        let samples = try RougeSample.parse(TextFile.read(file), name: file)
        var predictions = samples.map(\.prediction)
        if predictions.contains(nil) {
            guard model != "-" else {
                throw MartletError(
                    .invalidArgument, "\(file) has samples without a prediction",
                    mend: "Name a model that answers their prompts")
            }
            var options = try modelOptions.loadOptions()
            try limits.apply(to: &options)
            let path = try await ModelFinder.path(model)
            try modelOptions.checkEffect(on: path)
            let loaded = try LanguageModel.load(path, options: options)
            let settings = try sampling.settings(modelStops: loaded.stopTokens)
            let clock = ContinuousClock()
            let start = clock.now
            try answer(samples, &predictions, loaded, settings)
            let seconds = (clock.now - start).seconds
            Console.error(
                "\(samples.count) samples, total latency: \(Format.decimal(seconds, 3)) s; "
                    + loaded.precisionLine)
        } else {
            try GivenFlags.refuse(
                SamplingOptions.flags + ModelOptions.flags + LimitOptions.flags + ["--raw"],
                "where every sample has a prediction")
        }
        var report = RougeReport(usesStemmer: stemmer)
        for (sample, prediction) in zip(samples, predictions) {
            try report.add(sample, prediction: prediction ?? "")
        }
        Console.line((details ? report.details : report.summary).rendered(form))
        if let minRouge1, report.rouge1 < minRouge1 {
            throw MartletError(
                .checkFailed,
                "rouge1 is \(Format.decimal(report.rouge1, 3)), below the \(minRouge1) asked for")
        }
    }

    /// Answers the prompts of samples without a prediction, many at once.
    private func answer(
        _ samples: [RougeSample], _ predictions: inout [String?], _ model: LanguageModel,
        _ settings: SamplingSettings
    ) throws {
        let open = samples.indices.filter { predictions[$0] == nil }
        let meter = ProgressMeter("samples", total: open.count)
        let group = 64
        for first in stride(from: 0, to: open.count, by: group) {
            meter.show(first)
            let part = open[first..<min(first + group, open.count)]
            let requests = try part.map { index in
                GenerationRequest(
                    prompt: try model.promptTokens(samples[index].prompt ?? "", raw: raw),
                    settings: settings)
            }
            for (index, output) in zip(part, try model.generateBatch(requests)) {
                if let failure = output.failure { throw failure }
                predictions[index] = output.text
            }
        }
        meter.clear()
    }
}

extension LoadOptions {
    /// The same limits, all precisions as the checkpoint has them.
    fileprivate var asPublished: LoadOptions {
        var options = self
        let plain = LoadOptions()
        options.dtype = plain.dtype
        options.quantize = plain.quantize
        options.quantizeEmbedding = plain.quantizeEmbedding
        options.quantizeHead = plain.quantizeHead
        options.activations = "exact"
        options.kvType = plain.kvType
        options.disabledRules = []
        return options
    }
}
