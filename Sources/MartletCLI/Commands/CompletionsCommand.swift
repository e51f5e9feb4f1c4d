// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletHub

/// Prints what teaches a shell to complete.
struct CompletionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "completions",
        abstract: "Prints a completion script for bash, zsh or fish.",
        discussion: """
            bash: martlet completions bash > ~/.local/share/bash-completion/completions/martlet
            zsh:  martlet completions zsh > a folder of $fpath/_martlet
            fish: martlet completions fish > ~/.config/fish/completions/martlet.fish
            """,
        aliases: ["completion"])

    @Argument(
        help: "bash, zsh or fish.", completion: .list(CompletionShell.allCases.map(\.rawValue)))
    var shell: String

    func run() throws {
        guard let shell = CompletionShell(rawValue: shell) else {
            let names = CompletionShell.allCases.map(\.rawValue)
            throw MartletError(
                .invalidArgument, "there are no completions for '\(shell)'",
                mend: EditDistance.nearest(shell, among: names).map { "Did you mean '\($0)'?" }
                    ?? "Shells: \(names.joined(separator: ", "))")
        }
        Console.line(MartletProgram.completionScript(for: shell))
    }
}
