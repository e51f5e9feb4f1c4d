// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Synchronization

/// Events of one request as they happen, for one reader.
///
/// The request ends within a step when its reader is gone: when the loop over its events is left, when the reader's task is cancelled,
/// or when nobody holds events that have never been read. A reader that is behind pauses its request. A second reader gets an error.
public struct GenerationEvents: AsyncSequence, Sendable {
    /// An event.
    public typealias Element = GenerationEvent
    /// `MartletError`.
    public typealias Failure = any Error

    private let source: Source

    init(_ buffer: StreamBuffer) { source = Source(buffer) }

    /// Becomes the reader, if it is the first.
    public func makeAsyncIterator() -> Iterator { Iterator(reader: source.takeReader()) }

    /// The reader's side.
    public struct Iterator: AsyncIteratorProtocol {
        fileprivate let reader: Reader?

        /// The next event; nil behind the last.
        ///
        /// - Throws: `MartletError` where the device or a row of logits fails, `.invalidArgument` to a second reader.
        public mutating func next() async throws -> GenerationEvent? {
            guard let reader else {
                throw MartletError(
                    .invalidArgument, "a request's events have one reader",
                    mend: "Read them in one loop, and hand them on from there")
            }
            return try await reader.buffer.next()
        }
    }

    /// Who holds it reads or may read; the request ends when nobody does.
    fileprivate final class Reader: Sendable {
        let buffer: StreamBuffer
        init(_ buffer: StreamBuffer) { self.buffer = buffer }
        deinit { buffer.abandon() }
    }

    /// Holds the reader until a loop begins.
    private final class Source: Sendable {
        private let reader: Mutex<Reader?>
        init(_ buffer: StreamBuffer) { reader = Mutex(Reader(buffer)) }
        func takeReader() -> Reader? {
            reader.withLock { reader in
                defer { reader = nil }
                return reader
            }
        }
    }
}
