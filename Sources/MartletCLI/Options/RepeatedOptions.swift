// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Options that take one value: given twice, one of the values would be dropped without a word.
enum RepeatedOptions {
    /// Refuses an option that was given more than once and takes one value.
    ///
    /// - Parameter command: Whose options they are.
    /// - Throws: `MartletError` `.invalidArgument` naming the first such option.
    static func refuse(of command: any ParsableCommand.Type) throws {
        let words = GivenFlags.list
        // Descriptions of all options take a while to make.
        guard Set(words).count < words.count || words.contains(where: { !$0.hasPrefix("--") })
        else { return }
        let description = try JSONValue.parse(command._dumpHelp(), name: "the options")
        for argument in description["command"]?["arguments"]?.array ?? []
        where argument["kind"]?.string == "option" && argument["isRepeating"]?.bool == false {
            let names = (argument["names"]?.array ?? []).compactMap { name in
                name["name"]?.string.map { (name["kind"]?.string == "long" ? "--" : "-") + $0 }
            }
            let given = words.filter(names.contains)
            guard given.count > 1 else { continue }
            let option = Set(given).sorted().joined(separator: ", ")
            throw MartletError(
                .invalidArgument,
                "\(option): an option of one value was given \(given.count) times",
                mend: "Keep one of them")
        }
    }
}
