// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletTokenizer

/// Shows how text becomes tokens.
struct TokenizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize", abstract: "Prints the token ids of a text.")

    @Argument(
        help: "Model: alias, path, engine file, or owner/name:FILE.",
        completion: ModelFinder.completion)
    var model: String
    @Argument(help: "Text; standard input if absent.")
    var text: String?
    @Flag(help: "Ids only, separated by commas.")
    var ids = false
    @Flag(help: "Do not add the tokens that begin or end a text.")
    var noSpecial = false
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    func run() async throws {
        let form = try TableForm.parse(output)
        guard !ids || form == .text else {
            throw MartletError(
                .invalidArgument, "--ids and --output \(output) exclude each other",
                mend: "Give one of them")
        }
        let path = try await ModelFinder.path(model)
        let tokenizer = try LanguageModel.tokenizer(path)
        let input = try text ?? TextFile.readStandardInput()
        let tokens = tokenizer.encode(input, allowSpecial: true, addSpecial: !noSpecial)
        if ids { return Console.line(tokens.map(String.init).joined(separator: ",")) }
        var table = Table(["id", "text"])
        for token in tokens {
            table.add([.int(token), .string(tokenizer.decode([token], skipSpecial: false))])
        }
        guard form == .text else { return Console.line(table.rendered(form)) }
        // One token a line whatever its text holds.
        for row in table.rows { Console.line("\(row[0].serialized())\t\(row[1].serialized())") }
    }
}
