// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletBackend

/// Answers prompts.
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Answers one or several prompts.",
        aliases: ["generate"])

    @Argument(
        help: "Model: alias, path, engine file, or owner/name:FILE.",
        completion: ModelFinder.completion)
    var model: String
    @Argument(help: "Prompts; each is answered on its own (default: standard input, as one).")
    var prompts: [String] = []
    @Option(help: "File with one prompt a line.", completion: .file())
    var inputFile: String?
    @Option(
        parsing: .unconditionalSingleValue,
        help: "Prompt as token ids, such as 1,2,3; needs no tokenizer. May be repeated.")
    var inputIds: [String] = []
    @Option(help: "System message.")
    var system: String?
    @Flag(help: "Take prompts as they are, without the chat template.")
    var raw = false
    @Option(
        help: "text, or tensorrt-llm for its Input/Output lines.",
        completion: .list(["text", "tensorrt-llm"]))
    var format = "text"
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @Option(help: "Write answer token ids here, one line a prompt.", completion: .file())
    var outputCsv: String?
    @Option(
        help: "Write f32 logits [rows, V] here, context rows then generation rows.",
        completion: .file())
    var outputLogits: String?
    @Option(
        help:
            "Module path whose values are written, such as 'layers.*.attention.qkv'; may be repeated."
    )
    var tap: [String] = []
    @Option(help: "Where taps are written.", completion: .file())
    var outputNpz: String?
    @Flag(help: "Print token counts and rates to standard error.")
    var verbose = false
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions
    @OptionGroup var scheduling: SchedulingOptions
    @OptionGroup var sampling: SamplingOptions
    @OptionGroup var logProbabilities: LogProbabilityOptions
    @OptionGroup var search: SearchOptions

    func run() async throws {
        guard ["text", "tensorrt-llm"].contains(format) else {
            throw MartletError(
                .invalidArgument, "--format \(format) is not known",
                mend: "Use text or tensorrt-llm")
        }
        let form = try TableForm.parse(output)
        guard form == .text || format == "text" else {
            throw MartletError(
                .invalidArgument, "--format \(format) and --output \(output) exclude each other",
                mend: "Give one of them")
        }
        guard tap.isEmpty == (outputNpz == nil) else {
            throw MartletError(
                .invalidArgument, "--tap and --output-npz belong together",
                mend: "Give both, or neither")
        }
        if !tap.isEmpty {
            let answers = [
                "--output-csv", "--output-logits", "--output", "--format", "--verbose",
            ]
            try GivenFlags.refuse(
                answers + SamplingOptions.flags + LogProbabilityOptions.flags
                    + SearchOptions.flags + SchedulingOptions.flags,
                "with --tap, which computes prompts only")
        }
        if raw { try GivenFlags.refuse(["--system"], "with --raw, which leaves the template out") }
        for path in [outputCsv, outputLogits, outputNpz].compactMap({ $0 }) {
            try OutputFile.check(path)
        }
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        try scheduling.apply(to: &options)
        options.taps = tap
        var texts = try prompts + Self.lines(of: inputFile)
        if outputLogits != nil || logProbabilities.prompt != nil {
            options.maxLogitRows = options.maxTokensPerStep
        }
        let ids = try inputIds.map(Self.ids)
        if texts.isEmpty, ids.isEmpty, inputFile == nil, StandardStreams.inputIsRedirected {
            let text = try TextFile.readStandardInput().trimmingLineEnd
            if !text.isEmpty { texts = [text] }
        }
        guard !texts.isEmpty || !ids.isEmpty else {
            throw MartletError(
                .invalidArgument,
                inputFile.map { "there is no prompt in \($0)" } ?? "there is no prompt",
                mend: "Write: martlet run \(model) \"Why is the sky blue?\"")
        }
        if texts.count + ids.count == 1, search.answerCount == 1, search.bestOf == nil {
            try GivenFlags.refuse(
                SchedulingOptions.flags, "on one prompt with one answer",
                mend: "Leave it out, or give several prompts")
        }
        if texts.isEmpty {
            try GivenFlags.refuse(
                ["--system", "--raw"], "on --input-ids, which are a whole prompt already")
        }
        let path = try await ModelFinder.path(model)
        try OutputFile.checkApart(
            [outputCsv, outputLogits, outputNpz], from: [path, inputFile])
        try modelOptions.checkEffect(on: path)
        guard tap.isEmpty || !path.hasSuffix(".martlet") else {
            throw MartletError(
                .invalidArgument, "\(path) is compiled already, --tap cannot change it",
                mend: "Name the checkpoint it was made of")
        }
        let loaded = try LanguageModel.load(path, options: options)
        var settings = try sampling.settings(modelStops: loaded.stopTokens)
        logProbabilities.apply(to: &settings)
        try search.apply(to: &settings)
        if outputLogits != nil {
            settings.returnContextLogits = true
            settings.returnGenerationLogits = true
        }
        // All prompts share them: what is wrong with them is no prompt's failure.
        try settings.validate(vocabularySize: loaded.vocabularySize)
        try search.refuseCopies(settings)
        var batch = PromptBatch()
        for text in texts {
            try batch.add(for: loaded, settings) {
                try loaded.promptTokens(text, system: system, raw: raw)
            }
        }
        for list in ids { try batch.add(for: loaded, settings) { list } }
        if batch.runnable.isEmpty { try batch.throwFailure() }
        if let outputNpz { return try TapWriter.run(loaded, &batch, to: outputNpz) }
        let requests = batch.requests
        let isPlainStream =
            requests.count == 1 && form == .text && format == "text" && outputLogits == nil
            && loaded.hasTokenizer && settings.answerCount == 1
        let clock = ContinuousClock()
        let start = clock.now
        let outputs =
            isPlainStream
            ? [try await stream(loaded, requests[0])] : try batch.answers(of: loaded)
        if batch.runnable.isEmpty { try batch.throwFailure() }
        if form != .text {
            func repeated<Value>(_ values: [Value]) -> [Value] {
                zip(values, outputs).flatMap {
                    Array(repeating: $0, count: 1 + $1.alternatives.count)
                }
            }
            let table = AnswerTable.table(
                outputs.flatMap { [$0] + $0.alternatives }, prompts: repeated(texts + inputIds),
                requests: repeated(requests), loaded)
            Console.line(table.rendered(form))
        } else if !isPlainStream {
            printAnswers(loaded, texts, requests, outputs)
        }
        try writeFiles(outputs, settings.answerCount)
        if form == .text {
            if logProbabilities.prompt != nil {
                Console.line(LogProbabilityTable.prompts(outputs, loaded).rendered(.text))
            }
            if logProbabilities.answer != nil {
                Console.line(LogProbabilityTable.answers(outputs, loaded).rendered(.text))
            }
        }
        if verbose { report(requests, outputs, loaded, seconds: (clock.now - start).seconds) }
        try batch.throwFailure()
    }

    /// Prints pieces as they come.
    private func stream(
        _ model: LanguageModel, _ request: GenerationRequest
    ) async throws -> GenerationOutput {
        var output = GenerationOutput()
        for try await event in try model.events(request) {
            Console.write(event.text)
            output.append(event)
        }
        Console.line()
        return output
    }

    private func printAnswers(
        _ model: LanguageModel, _ texts: [String], _ requests: [GenerationRequest],
        _ outputs: [GenerationOutput]
    ) {
        for (index, output) in outputs.enumerated() where output.failure == nil {
            let answers = ([output] + output.alternatives).map {
                model.hasTokenizer ? $0.text : $0.tokens.map(String.init).joined(separator: ",")
            }
            if format == "tensorrt-llm" {
                let input =
                    index < texts.count
                    ? texts[index] : requests[index].prompt.map(String.init).joined(separator: ",")
                Console.line("Input [Text \(index)]: \"\(input)\"")
                for (beam, answer) in answers.enumerated() {
                    Console.line("Output [Text \(index) Beam \(beam)]: \"\(answer)\"")
                }
            } else {
                for answer in answers { Console.line(answer) }
            }
        }
    }

    /// Lines of the CSV stay in step with the prompts: one that failed has empty lines there, and no logits.
    private func writeFiles(_ outputs: [GenerationOutput], _ answerCount: Int) throws {
        if let outputCsv {
            let lines = outputs.flatMap { output in
                let answers = [output] + output.alternatives
                return (0..<max(answers.count, answerCount)).map { index in
                    let tokens = index < answers.count ? answers[index].tokens : []
                    return tokens.map(String.init).joined(separator: ",") + "\n"
                }
            }
            try OutputFile.write(Array(lines.joined().utf8), to: outputCsv)
        }
        if let outputLogits {
            let rows = outputs.flatMap { [$0] + $0.alternatives }
                .flatMap { $0.contextLogits + $0.generationLogits }
            try OutputFile.write(NPY.matrix(rows), to: outputLogits)
        }
    }

    private func report(
        _ requests: [GenerationRequest], _ outputs: [GenerationOutput], _ model: LanguageModel,
        seconds: Double
    ) {
        let prompt = requests.reduce(0) { $0 + $1.prompt.count }
        let answer = outputs.flatMap { [$0] + $0.alternatives }.reduce(0) { $0 + $1.tokens.count }
        let rate = Format.decimal(Double(answer) / max(seconds, 1e-9), 1)
        Console.error(
            "prompt \(prompt) tokens, answer \(answer) tokens in \(Format.decimal(seconds, 3)) s "
                + "(\(rate) tokens/s, prompt included); \(model.precisionLine)")
    }

    private static func lines(of file: String?) throws -> [String] {
        guard let file else { return [] }
        // A line ends where an editor ends it: other separators of Unicode belong to the prompt.
        let isEnd: (Character) -> Bool = { $0 == "\n" || $0 == "\r\n" }
        var lines = try TextFile.read(file).split(
            omittingEmptySubsequences: false, whereSeparator: isEnd)
        while lines.last?.isEmpty == true { lines.removeLast() }
        // Results are in the order of the lines: none is passed over.
        if let index = lines.firstIndex(where: \.isEmpty) {
            throw MartletError(
                .invalidArgument, "line \(index + 1) of \(file) is empty, but each is a prompt",
                mend: "Take the line out")
        }
        return lines.map(String.init)
    }

    private static func ids(_ text: String) throws -> [Int32] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
            guard let id = Int32(part.filter { $0 != " " }) else {
                throw MartletError(
                    .invalidArgument, "'\(part)' in --input-ids is no token id",
                    mend: "Write ids with commas, such as 1,2,3")
            }
            return id
        }
    }
}
