// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// The flags that the user wrote: one that would have no effect is an error, not silence.
///
/// The parser fills in defaults and does not tell what was given, so the words themselves are looked at.
enum GivenFlags {
    /// Names of flags as they were given, in order, without the values behind `=`.
    static let list: [String] = {
        let arguments = MartletProgram.arguments
        let end = arguments.firstIndex(of: "--") ?? arguments.count
        return arguments[..<end].filter { $0.hasPrefix("-") }.map {
            String($0.prefix { $0 != "=" })
        }
    }()
    private static let words = Set(list)

    /// The first of some flags that was given.
    static func first(of flags: [String]) -> String? { flags.first(where: words.contains) }

    /// Refuses flags that a call makes meaningless.
    ///
    /// - Parameters:
    ///   - reason: Why, as in `--top-k has no effect with --perplexity`.
    ///   - mend: What to do instead of leaving the flag out.
    /// - Throws: `MartletError` `.invalidArgument` naming the first that was given.
    static func refuse(_ flags: [String], _ reason: String, mend: String? = nil) throws {
        guard let flag = first(of: flags) else { return }
        throw MartletError(
            .invalidArgument, "\(flag) has no effect \(reason)", mend: mend ?? "Leave it out")
    }
}

extension ParsableArguments {
    /// All names of a group's flags, read from its help so that a new one cannot be forgotten.
    static var flags: [String] {
        helpMessage(columns: 200).split(separator: "\n").filter { $0.hasPrefix("  -") }
            .flatMap { line in
                line.split(separator: " ").prefix { $0.hasPrefix("-") }
                    .map { $0.hasSuffix(",") ? String($0.dropLast()) : String($0) }
            }
            .filter { !["-h", "--help", "--version"].contains($0) }
    }
}
