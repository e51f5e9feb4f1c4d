// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension OpSet {
    /// Values that come from outside; their types are given, not inferred.
    static let sources: [OpDefinition] = [
        source("input", "a field of the step record, named by `name`"),
        source("parameter", "a weight, named by `name`"),
        source("constant", "a value known to the graph, named by `name`"),
    ]

    private static func source(_ name: String, _ summary: String) -> OpDefinition {
        OpDefinition(
            name, summary, operands: [], attributes: ["name"], optionalAttributes: ["source"]
        ) {
            context in
            throw context.failure("the type of a source is given, not inferred")
        }
    }
}
