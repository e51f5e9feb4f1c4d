// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCUDA

/// Says what a model will take before it is loaded.
struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Says what memory and time a model will take, before anything is loaded.",
        discussion: """
            Memory follows from the compiled plan; time from its bytes, from the rate at which this \
            machine is measured to read, and from a trial of one layer with empty weights. The same \
            flags as for bench, whose figures these are meant to be.

            With --device cuda: the memory budget of the engine on a GPU, and what bounds batch and \
            context there. No GPU is needed where one is named with --gpu.
            """,
        aliases: ["fit"])

    @OptionGroup var choice: ModelChoice
    @Option(help: "Batch sizes, such as \"1;8\".")
    var batchSize = "1"
    @Option(help: "Prompt and answer lengths, such as \"32,50;128,50\".")
    var inputOutputLen = "32,50"
    @Option(
        help: """
            The GPU to plan for, with --device cuda, such as h100 or a100-40gb (default: the one of this \
            machine).
            """,
        completion: .list(GPUChip.known.map(\.name)))
    var gpu: String?
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions

    func run() async throws {
        let programBytes = ProcessMemory.residentBytes
        let form = try TableForm.parse(output)
        // An unknown device is named first, not a flag that it has no use for.
        var options = try modelOptions.loadOptions()
        if options.device != .cuda {
            try GivenFlags.refuse(["--gpu"], "on the CPU", mend: "Add --device cuda")
        }
        try GivenFlags.refuse(
            ["--no-cache", "--retarget"], "on plan, which builds and loads no engine")
        let cases = try BenchCase.parse(batches: batchSize, lengths: inputOutputLen)
        let found = try await choice.find()
        guard !found.isEngine else {
            throw MartletError(
                .unsupported,
                "\(found.path) is an engine, plans are made for what it is built from",
                mend: "Name the checkpoint, or measure the engine: martlet bench \(found.path)")
        }
        try limits.apply(to: &options)
        BenchCase.size(&options, for: cases, limits)
        let (builder, source) = try found.builder(options)
        if options.device == .cuda {
            let report = try GPUPlanReport(builder, source, options: options, gpu: gpu)
            return try show(
                [("memory", report.memoryTable), ("bounds", report.boundTable)], form,
                warning: report.warning)
        }
        let report = try PlanReport(
            builder, source, cases: cases, options: options, programBytes: programBytes)
        try show(
            [
                ("memory", report.memoryTable), ("cases", report.caseTable),
                ("machine", report.machineTable),
            ], form, warning: report.warning)
    }

    private func show(
        _ tables: [(name: String, table: Table)], _ form: Table.Form, warning: String?
    ) throws {
        if form == .json {
            let object = JSONObject(tables.map { ($0.name, $0.table.json) })
            return Console.line(JSONValue.object(object).serialized(pretty: true))
        }
        Console.line(tables.map { $0.table.rendered(form) }.joined(separator: "\n\n"))
        if let warning { Console.error("warning: \(warning)") }
    }
}
