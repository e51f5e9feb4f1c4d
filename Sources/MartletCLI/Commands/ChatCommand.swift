// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Talks with a model.
struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Holds a conversation.",
        discussion: """
            At a terminal messages can be edited (arrows, history, pasted lines) and Ctrl-C stops an \
            answer; /help lists commands. Through a pipe each line is a message, answers go to \
            standard output, and the first error ends the program.
            """)

    @Argument(
        help: "Model: alias, path, engine file, or owner/name:FILE.",
        completion: ModelFinder.completion)
    var model: String
    @Option(help: "System message.")
    var system: String?
    @Flag(help: "Print token counts and rates after each answer to standard error.")
    var verbose = false
    @Option(
        help: "text for answers as they come; json, csv or md for the conversation at its end.",
        completion: TableForm.completion)
    var output = "text"
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var limits: LimitOptions
    @OptionGroup var sampling: SamplingOptions

    func run() async throws {
        let form = try TableForm.parse(output)
        var options = try modelOptions.loadOptions()
        try limits.apply(to: &options)
        // One conversation needs the memory of one.
        if limits.maxBatchSize == nil { options.maxBatchSize = 1 }
        let path = try await ModelFinder.path(model)
        try modelOptions.checkEffect(on: path)
        let loaded = try LanguageModel.load(path, options: options)
        try Conversation.check(loaded)
        let settings = try sampling.settings(modelStops: loaded.stopTokens)
        try settings.validate(vocabularySize: loaded.vocabularySize)
        var session = ChatSession(
            loaded, settings: settings, system: system, form: form, isVerbose: verbose)
        try await session.run()
    }
}
