// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletBackend
import MartletCompiler
import MartletEngineFile

/// Shows what the compiler did, and what an engine file holds.
struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Shows graphs, rewrites, the plan, or an engine file.")

    @Argument(
        help: "Model: alias, path, or engine file.",
        completion: ModelFinder.completion)
    var model: String
    @Flag(help: "The optimized graph as text.")
    var graph = false
    @Flag(help: "The graph as traced.")
    var traced = false
    @Option(help: "The graph after this rule, as text.")
    var after: String?
    @Option(help: "The graph before this rule, as text.")
    var before: String?
    @Flag(help: "Each pass with its counts (the default).")
    var rules = false
    @Flag(help: "Plan steps: family, refused candidates with reasons, cost.")
    var plan = false
    @Flag(help: "Memory plan.")
    var memory = false
    @Option(
        help: "Form of graphs: text, dot, mermaid or svg.",
        completion: .list(["text", "dot", "mermaid", "svg"]))
    var format = "text"
    @Option(help: "Entry point.")
    var entryPoint = "decode"
    @Option(help: "Form of tables: text, json, csv or md.", completion: TableForm.completion)
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions

    func run() async throws {
        let form = try TableForm.parse(output)
        guard ["text", "dot", "mermaid", "svg"].contains(format) else {
            throw MartletError(
                .invalidArgument, "--format \(format) is not known",
                mend: "Use text, dot, mermaid or svg")
        }
        guard form == .text || !(graph || traced || before != nil || after != nil) else {
            throw MartletError(
                .invalidArgument, "a graph is no table, --output \(output) cannot print it",
                mend: "Use --format text, dot, mermaid or svg")
        }
        try checkViews()
        try GivenFlags.refuse(["--no-cache"], "on inspect, which keeps no engine")
        let path = try await ModelFinder.path(model)
        if path.hasSuffix(".martlet") {
            try modelOptions.checkEffect(on: path, runs: false)
            return try inspectFile(path, form)
        }
        let (builder, _) = try LanguageModel.builder(path, options: modelOptions.loadOptions())
        let programs = try builder.programs()
        guard let program = programs.first(where: { $0.graph.name == entryPoint }) else {
            throw MartletError(
                .notFound, "there is no entry point '\(entryPoint)'",
                mend: "Entry points: \(programs.map(\.graph.name).joined(separator: ", "))")
        }
        if graph { return Console.line(try rendered(program.graph)) }
        if traced { return Console.line(try rendered(program.traced)) }
        if let rule = before ?? after {
            let records = program.records
            let index =
                before == nil
                ? records.lastIndex { $0.name == rule } : records.firstIndex { $0.name == rule }
            guard let index else {
                var names: [String] = []
                for record in records where !names.contains(record.name) {
                    names.append(record.name)
                }
                throw MartletError(
                    .notFound, "rule '\(rule)' changed nothing in this model",
                    mend: "Applied: \(names.joined(separator: ", "))")
            }
            if before == nil { return Console.line(try rendered(records[index].graph)) }
            return Console.line(
                try rendered(index > 0 ? records[index - 1].graph : program.traced))
        }
        if plan { return Console.line(planTable(program).rendered(form)) }
        if memory { return Console.line(memoryTable(program.emitted.plan).rendered(form)) }
        Console.line(rulesTable(program).rendered(form))
        let report = MemoryReport(program.emitted.plan).text
        if form == .text { Console.line(report) } else { Console.error(report) }
    }

    /// One view a call: flags of another would be silence.
    private func checkViews() throws {
        let views = [
            ("--graph", graph), ("--traced", traced), ("--before", before != nil),
            ("--after", after != nil), ("--rules", rules), ("--plan", plan), ("--memory", memory),
        ].filter(\.1).map(\.0)
        guard views.count < 2 else {
            throw MartletError(
                .invalidArgument, "\(views.joined(separator: " and ")) are several views",
                mend: "Give one of them")
        }
        if !["--graph", "--traced", "--before", "--after"].contains(views.first ?? "") {
            try GivenFlags.refuse(
                ["--format"], "without a graph",
                mend: "Add --graph, or use --output for the form of tables")
        }
    }

    private func rendered(_ graph: Graph) throws -> String {
        switch format {
        case "text": graph.text
        case "dot": graph.dot
        case "mermaid": graph.mermaid
        case "svg": graph.svg
        default:
            throw MartletError(
                .invalidArgument, "--format \(format) is not known",
                mend: "Use text, dot, mermaid or svg")
        }
    }

    private func rulesTable(_ program: EngineBuilder.Program) -> Table {
        var table = Table(["stage", "pass", "applied", "nodes before", "nodes after"])
        var before = program.traced.order.count
        var index = 0
        while index < program.records.count {
            // A rule that was applied several times in a row is one line.
            let first = program.records[index]
            var count = 0
            var after = before
            while index < program.records.count, program.records[index].name == first.name,
                program.records[index].stage == first.stage
            {
                count += program.records[index].count
                after = program.records[index].graph.order.count
                index += 1
            }
            table.add([
                .string(first.stage), .string(first.name), .int(count), .int(before), .int(after),
            ])
            before = after
        }
        return table
    }

    private func planTable(_ program: EngineBuilder.Program) -> Table {
        var table = Table(["step", "op", "path", "family", "us", "refused"])
        for (index, choice) in program.emitted.choices.enumerated() {
            let seconds = choice.candidates.first { $0.family == choice.family }?.seconds ?? 0
            let refused = choice.candidates.filter { $0.family != choice.family }.map {
                "\($0.family): \($0.refusal ?? "slower")"
            }
            table.add([
                .int(index), .string(choice.op), .string(choice.path), .string(choice.family),
                .double((seconds * 1e7).rounded() / 10), .string(refused.joined(separator: "; ")),
            ])
        }
        return table
    }

    private func memoryTable(_ plan: Plan) -> Table {
        var table = Table(["value", "rows", "columns", "format", "bytes a row", "slot"])
        for (index, buffer) in plan.buffers.enumerated() {
            table.add([
                .int(index), .string(buffer.rows.description), .int(buffer.columns),
                .string(buffer.format), .int(buffer.rowBytes), .int(buffer.slot),
            ])
        }
        return table
    }

    private func inspectFile(_ path: String, _ form: Table.Form) throws {
        let file = try EngineFileReader.open(path)
        if graph {
            guard let text = try file.text(.graph, entryPoint: entryPoint) else {
                throw MartletError(
                    .notFound, "the engine keeps no graph of '\(entryPoint)'",
                    mend: "Entry points: \(file.manifest.entryPoints.joined(separator: ", "))")
            }
            let kept = try Compiler.readGraph(
                text, entryPoint: entryPoint, constants: file.constants())
            return Console.line(try rendered(kept))
        }
        guard !traced, after == nil, before == nil, !rules else {
            throw MartletError(
                .unsupported, "an engine file keeps the final graph only",
                mend: "Name the checkpoint it was made of")
        }
        let description = file.manifest.description
        if memory || plan {
            let plan = try file.plan(
                entryPoint: entryPoint, for: file.manifest.planTargets.first ?? EngineTarget("cpu"))
            return Console.line(
                (memory ? memoryTable(plan) : stepsTable(plan)).rendered(form))
        }
        try GivenFlags.refuse(
            ["--entry-point"], "on the whole file", mend: "Add --graph, --plan or --memory")
        // Where the output is for programs, only the table is data.
        let say: (String) -> Void = { form == .text ? Console.line($0) : Console.error($0) }
        say("\(description.modelName) (\(description.architecture)), \(description.builderVersion)")
        say(
            "weights \(description.precision.weights), activations \(description.precision.activations), "
                + "KV \(description.precision.kvDType); targets \(file.manifest.targets.joined(separator: ", "))"
        )
        var table = Table(["section", "bytes", "offset"])
        for section in file.manifest.sections {
            table.add([
                .string(section.key.description), .int(section.byteCount), .int(section.offset),
            ])
        }
        Console.line(table.rendered(form))
        for target in file.manifest.planTargets {
            for name in file.manifest.entryPoints {
                let report = MemoryReport(try file.plan(entryPoint: name, for: target)).text
                say("\(target.name): \(report)")
            }
        }
    }

    private func stepsTable(_ plan: Plan) -> Table {
        var table = Table(["step", "op", "path", "family"])
        for (index, step) in plan.steps.enumerated() {
            table.add([
                .int(index), .string(step.op), .string(step.path), .string(step.family),
            ])
        }
        return table
    }
}
