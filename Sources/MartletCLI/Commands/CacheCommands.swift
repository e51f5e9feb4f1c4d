// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCore
import MartletHub

/// Fetches a model.
struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Fetches a model into the cache.", aliases: ["get"])

    @Argument(
        help: "Model: alias such as smollm2, owner/name, owner/name:Q4_0, modelscope:owner/name.")
    var model: String
    @Flag(name: .shortAndLong, help: "Print nothing but the path.")
    var quiet = false
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    func run() async throws {
        let form = try TableForm.parse(output)
        let hub = ModelFinder.hub(isQuiet: quiet)
        let terminal = PullTerminal(style: PullTerminal.standardStyle(isQuiet: quiet))
        let reference = try hub.reference(model)
        let pulled = try await Interrupt.cancelling {
            try await hub.pull(reference, observe: terminal.observer)
        }
        guard form != .text else { return Console.line(pulled.path) }
        var table = Table(["path", "source", "bytes", "sha256"])
        table.add([
            .string(pulled.path), .string(pulled.source), .int(pulled.byteCount),
            pulled.sha256.map(JSONValue.string) ?? .null,
        ])
        Console.line(table.rendered(form))
    }
}

/// Lists models and engines.
struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "Lists models and engines in the caches.",
        aliases: ["list"])

    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    func run() throws {
        let form = try TableForm.parse(output)
        func size(_ count: Int) -> JSONValue {
            form == .text ? .string(Format.bytes(count)) : .int(count)
        }
        var table = Table(["kind", "name", "file", "precision", "size", "last use", "path"])
        for model in Hub().list() {
            for file in model.files {
                table.add([
                    .string("model"), .string(model.description), .string(file.name), .null,
                    size(file.byteCount), .null, .string(file.path),
                ])
            }
        }
        let folder = EngineCache.defaultFolder
        for engine in folder.map(EngineCache.list(in:))?.reversed() ?? [] {
            table.add([
                .string("engine"), engine.modelName.map(JSONValue.string) ?? .null,
                .string(engine.name), .string(engine.precision ?? engine.problem ?? "damaged"),
                size(engine.byteCount), .string(Format.time(engine.lastUse / 1_000_000_000)),
                .string(engine.path),
            ])
        }
        if table.rows.isEmpty {
            Console.error("the cache holds no model; martlet pull smollm2 fetches one")
            if form == .text { return }
        }
        Console.line(table.rendered(form))
    }
}

/// Removes models and engines.
struct RemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm",
        abstract: "Removes a model and the engines made of it, or an engine, from the caches.",
        aliases: ["remove"])

    @Argument(
        help: "Model: alias, owner/name or owner/name:FILE; or an engine as ls shows its file.")
    var name: String?
    @Flag(help: "Remove every cached engine, and no model.")
    var engines = false
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    /// Something that was removed.
    private typealias Removed = (kind: String, name: String, byteCount: Int)

    func run() throws {
        let form = try TableForm.parse(output)
        guard engines == (name == nil) else {
            throw MartletError(
                .invalidArgument,
                engines ? "both a name and --engines are given" : "nothing is named",
                mend: "Write: martlet rm NAME, or martlet rm --engines")
        }
        let removed = try name.map(remove) ?? remove(cachedEngines)
        var table = Table(["kind", "name", "size"])
        for item in removed {
            table.add([.string(item.kind), .string(item.name), .int(item.byteCount)])
            guard form == .text else { continue }
            Console.error(
                "removed \(item.kind) \(item.name), \(Format.bytes(item.byteCount)) freed")
        }
        if form != .text { Console.line(table.rendered(form)) }
    }

    private var cachedEngines: [CachedEngine] {
        EngineCache.defaultFolder.map(EngineCache.list(in:)) ?? []
    }

    private func remove(_ engines: [CachedEngine]) throws -> [Removed] {
        try engines.map { engine in
            try EngineCache.remove(engine)
            return ("engine", engine.name, engine.byteCount)
        }
    }

    private func remove(_ name: String) throws -> [Removed] {
        let named = cachedEngines.filter {
            [$0.name, $0.path, String($0.name.dropLast(".martlet".count))].contains(name)
        }
        if !named.isEmpty { return try remove(named) }
        let hub = Hub()
        let reference = try hub.reference(name)
        let before = hub.list().flatMap(\.files)
        let freed = try hub.remove(reference)
        let left = Set(hub.list().flatMap(\.files).map(\.path))
        // An engine that nothing can ask for any more goes with its model.
        let gone = before.filter { !left.contains($0.path) }
            .map { (name: FileStatus.name($0.name), byteCount: $0.byteCount) }
        let orphans =
            EngineCache.defaultFolder.map { EngineCache.list(in: $0, builtFrom: gone) } ?? []
        return [("model", name, freed)] + (try remove(orphans))
    }
}

/// The value of `--output`.
enum TableForm {
    /// What a shell offers for it.
    static var completion: CompletionKind { .list(Table.Form.allCases.map(\.rawValue)) }

    static func parse(_ text: String) throws -> Table.Form {
        guard let form = Table.Form(rawValue: text) else {
            throw MartletError(
                .invalidArgument, "--output \(text) is not known", mend: "Use text, json, csv or md"
            )
        }
        return form
    }
}
