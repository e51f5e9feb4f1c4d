// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The program `martlet`.
@main
struct MartletProgram: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Compiles and runs large language models.",
        discussion: """
            Models are named by alias (smollm2), by path (model.gguf, engine.martlet, a folder with \
            config.json and model.safetensors), or as owner/name:FILE on the hub.

            Exit codes: 0 success, 2 usage, 3 not found, 4 damaged file, 5 unsupported, 6 limit \
            exceeded, 7 network, 8 file system, 9 device, 64 unknown command or option, 70 \
            defect, 130 interrupted, 143 terminated.
            """,
        version: "martlet 0.1.0",
        subcommands: [
            RunCommand.self, BuildCommand.self, PullCommand.self, BenchCommand.self,
            EvalCommand.self, InspectCommand.self, ListCommand.self, RemoveCommand.self,
            DoctorCommand.self, TokenizeCommand.self,
        ])

    /// A command that does not exist.
    private struct UnknownCommand: Error {
        let message: String
    }

    /// Says which command was meant where the first word is none.
    private static func checkCommandName() throws {
        let names = configuration.subcommands.flatMap { command in
            [command.configuration.commandName].compactMap { $0 } + command.configuration.aliases
        }
        guard let word = CommandLine.arguments.dropFirst().first, !word.hasPrefix("-"),
            word != "help", !names.contains(word)
        else { return }
        let meant = EditDistance.nearest(word, among: names + ["help"])
        throw UnknownCommand(
            message: "unknown command '\(word)'. "
                + (meant.map { "Did you mean '\($0)'?" }
                    ?? "Commands: \(names.joined(separator: ", "))"))
    }

    static func main() async {
        Interrupt.install()
        do {
            try checkCommandName()
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch let error as MartletError {
            Console.error("error: \(error)")
            Foundationless.exit(error.code.exitCode)
        } catch let error as UnknownCommand {
            Console.error("error: \(error.message)")
            Foundationless.exit(64)
        } catch is CancellationError {
            Console.error("interrupted")
            Foundationless.exit(MartletError.Code.cancelled.exitCode)
        } catch {
            exit(withError: error)
        }
    }
}

/// The C library's `exit`, which `ParsableCommand.exit` hides.
enum Foundationless {
    static func exit(_ code: Int32) -> Never {
        fflush(nil)
        #if canImport(Glibc)
        Glibc.exit(code)
        #elseif canImport(Musl)
        Musl.exit(code)
        #else
        Darwin.exit(code)
        #endif
    }
}
