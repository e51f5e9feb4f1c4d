// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Makes text of tokens; what the runtime needs of a tokenizer.
package protocol TokenDecoding: Sendable {
    /// Starts the text of one answer.
    func makeTextStream() -> any TokenTextStream
}

/// Text of one answer, token by token; never half a character.
///
/// A value: copies go on apart.
package protocol TokenTextStream: Sendable {
    /// Text that became complete with the token; may be empty.
    mutating func append(_ token: Int32) -> String
    /// The rest at the end of the answer.
    mutating func finish() -> String
}
