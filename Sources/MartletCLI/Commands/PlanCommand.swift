// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Says what a model will take before it is loaded.
struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Says what memory and time a model will take, before anything is loaded.",
        discussion: """
            Memory follows from the compiled plan; time from its bytes, from the rate at which this \
            machine is measured to read, and from a trial of one layer with empty weights. The same \
            flags as for bench, whose figures these are meant to be.
            """,
        aliases: ["fit"])

    @OptionGroup var choice: ModelChoice
    @Option(help: "Batch sizes, such as \"1;8\".")
    var batchSize = "1"
    @Option(help: "Prompt and answer lengths, such as \"32,50;128,50\".")
    var inputOutputLen = "32,50"
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions

    func run() async throws {
        let programBytes = ProcessMemory.residentBytes
        let form = try TableForm.parse(output)
        try GivenFlags.refuse(
            ["--memory-fraction", "--force-sm"], "in a plan, which loads nothing",
            mend: "Give it to run or bench")
        let cases = try BenchCase.parse(batches: batchSize, lengths: inputOutputLen)
        let found = try await choice.find()
        guard !found.isEngine else {
            throw MartletError(
                .unsupported,
                "\(found.path) is an engine, plans are made for what it is built from",
                mend: "Name the checkpoint, or measure the engine: martlet bench \(found.path)")
        }
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        BenchCase.size(&options, for: cases, limits)
        let (builder, source) = try found.builder(options)
        let report = try PlanReport(
            builder, source, cases: cases, options: options, programBytes: programBytes)
        if form == .json {
            let both = JSONObject([
                ("memory", report.memoryTable.json), ("cases", report.caseTable.json),
                ("machine", report.machineTable.json),
            ])
            return Console.line(JSONValue.object(both).serialized(pretty: true))
        }
        let tables = [report.memoryTable, report.caseTable, report.machineTable]
        Console.line(tables.map { $0.rendered(form) }.joined(separator: "\n\n"))
        if let warning = report.warning { Console.error("warning: \(warning)") }
    }
}
