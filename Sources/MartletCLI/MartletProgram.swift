// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

/// The program `martlet`.
@main
struct MartletProgram: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Compiles and runs large language models.",
        discussion: """
            Models are named by alias (smollm2), by path (model.gguf, engine.martlet, a folder with \
            config.json and model.safetensors), or as owner/name:FILE on the hub.

            Results go to standard output, progress and errors to standard error. Options may be \
            written with - or _ between words.

            Exit codes:
            \(ExitStatus.table)
            """,
        version: "martlet 0.1.0",
        subcommands: [
            RunCommand.self, ChatCommand.self, BuildCommand.self, PullCommand.self,
            BenchCommand.self, EvalCommand.self, InspectCommand.self, PlanCommand.self,
            ListCommand.self, RemoveCommand.self,
            DoctorCommand.self, SelftestCommand.self, KernelsCommand.self, TokenizeCommand.self,
            CompletionsCommand.self,
        ])

    static let _errorPrefix = "error: "

    /// A command that does not exist.
    private static func unknownCommand(_ word: String, _ names: [String]) -> MartletError {
        let meant = EditDistance.nearest(word, among: names + ["help"])
        return MartletError(
            .invalidArgument, "unknown command '\(word)'",
            mend: meant.map { "Did you mean '\($0)'?" }
                ?? "Commands: \(names.joined(separator: ", "))")
    }

    /// Says which command was meant where the first word is none.
    private static func checkCommandName(_ arguments: [String]) throws {
        let names = configuration.subcommands.flatMap { command in
            [command.configuration.commandName].compactMap { $0 } + command.configuration.aliases
        }
        // `martlet help WORD` asks for a command as well.
        let isHelp = arguments.first == "help"
        guard let word = arguments.dropFirst(isHelp ? 1 : 0).first, !word.hasPrefix("-"),
            isHelp || word != "help", !names.contains(word)
        else { return }
        throw unknownCommand(word, names)
    }

    /// Writes the names of long options with hyphens: `--max_batch_size` is `--max-batch-size`.
    private static func hyphenated(_ arguments: [String]) -> [String] {
        let end = arguments.firstIndex(of: "--") ?? arguments.count
        return arguments.enumerated().map { index, argument in
            guard index < end, argument.hasPrefix("--"), !argument.hasPrefix("---") else {
                return argument
            }
            let name = argument.prefix { $0 != "=" }
            return String(name.map { $0 == "_" ? "-" : $0 }) + argument.dropFirst(name.count)
        }
    }

    /// The words behind the program's name, long options with hyphens.
    static let arguments = hyphenated(Array(CommandLine.arguments.dropFirst()))

    static func main() async {
        StandardStreams.open()
        do {
            try OpenFiles.raiseLimit()
            try Interrupt.install()
            MappedFileGuard.install()
            try ArgumentText.check()
            try checkCommandName(arguments)
            var command = try parseAsRoot(arguments)
            try RepeatedOptions.refuse(of: type(of: command))
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as MartletError {
            Console.error("error: " + "\(SettingFlags.naming(error))".visible)
            ExitStatus.leave(error.code.exitCode)
        } catch is CancellationError {
            Console.error("interrupted")
            ExitStatus.leave(MartletError.Code.cancelled.exitCode)
        } catch {
            let text = fullMessage(for: error)
            if exitCode(for: error) == .success {
                if !text.isEmpty { Console.line(text) }
                ExitStatus.leave(0)
            }
            Console.error(text)
            ExitStatus.leave(
                exitCode(for: error) == .validationFailure
                    ? MartletError.Code.invalidArgument.exitCode
                    : MartletError.Code.internalError.exitCode)
        }
    }
}
