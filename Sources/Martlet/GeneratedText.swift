// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletRuntime

/// The text of an answer, piece by piece, for one reader, with whom the request ends (`GenerationEvents`).
public struct GeneratedText: AsyncSequence, Sendable {
    /// A piece of text.
    public typealias Element = String
    /// `MartletError`.
    public typealias Failure = any Error

    let events: GenerationEvents

    /// Becomes the reader, if it is the first.
    public func makeAsyncIterator() -> Iterator { Iterator(events: events.makeAsyncIterator()) }

    /// The reader's side.
    public struct Iterator: AsyncIteratorProtocol {
        var events: GenerationEvents.Iterator

        /// The next piece, not empty; nil behind the last.
        ///
        /// - Throws: As `GenerationEvents.Iterator`.
        public mutating func next() async throws -> String? {
            while let event = try await events.next() {
                if !event.text.isEmpty { return event.text }
            }
            return nil
        }
    }
}
