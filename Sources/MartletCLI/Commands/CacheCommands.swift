// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

/// Fetches a model.
struct PullCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Fetches a model into the cache.", aliases: ["get"])

    @Argument(help: "Model: alias such as smollm2, or owner/name:FILE.")
    var model: String
    @Flag(name: .shortAndLong, help: "Print nothing but the path.")
    var quiet = false

    func run() async throws {
        let hub = ModelFinder.hub(isQuiet: quiet)
        let terminal = PullTerminal(style: PullTerminal.standardStyle(isQuiet: quiet))
        let pulled = try await hub.pull(try hub.reference(model), observe: terminal.observer)
        Console.line(pulled.path)
    }
}

/// Lists models.
struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "Lists models in the cache.", aliases: ["list"])

    @Option(help: "text, json, csv or md.")
    var output = "text"

    func run() throws {
        let form = try TableForm.parse(output)
        let models = Hub().list()
        if models.isEmpty {
            Console.error("the cache holds no model; martlet pull smollm2 fetches one")
            if form == .text { return }
        }
        var table = Table(["name", "file", "size", "path"])
        for model in models {
            for file in model.files {
                table.add([
                    .string(model.repository), .string(file.name),
                    output == "text" ? .string(Format.bytes(file.byteCount)) : .int(file.byteCount),
                    .string(file.path),
                ])
            }
        }
        Console.line(table.rendered(form))
    }
}

/// Removes models.
struct RemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Removes a model from the cache.", aliases: ["remove"])

    @Argument(help: "Model: alias, owner/name or owner/name:FILE.")
    var model: String

    func run() throws {
        let hub = Hub()
        let freed = try hub.remove(try hub.reference(model))
        Console.error("removed \(model), \(Format.bytes(freed)) freed")
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
