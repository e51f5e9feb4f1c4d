// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletTokenizer

/// Shows how text becomes tokens.
struct TokenizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize", abstract: "Prints the token ids of a text.")

    @Argument(help: "Model: alias, path, engine file, or owner/name:FILE.")
    var model: String
    @Argument(help: "Text; standard input if absent.")
    var text: String?
    @Flag(help: "Ids only, separated by commas.")
    var ids = false
    @Flag(help: "Do not add the tokens that begin or end a text.")
    var noSpecial = false

    func run() async throws {
        let path = try await ModelFinder.path(model)
        let tokenizer = try LanguageModel.tokenizer(path)
        var input = text ?? ""
        if text == nil {
            var lines: [String] = []
            while let line = readLine(strippingNewline: false) { lines.append(line) }
            input = lines.joined()
        }
        let tokens = tokenizer.encode(input, allowSpecial: true, addSpecial: !noSpecial)
        if ids {
            Console.line(tokens.map(String.init).joined(separator: ","))
        } else {
            for token in tokens {
                let text = tokenizer.decode([token], skipSpecial: false)
                Console.line("\(token)\t\(JSONValue.string(text).serialized())")
            }
        }
    }
}
