// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A closure that changes logits before a token is drawn from them.
///
/// Its request's logits come to the host, which draws; other requests are not held up. Two
/// processors are equal if they are copies of one.
public struct LogitsProcessor: Sendable, Hashable {
    /// What a processor sees besides the logits.
    public struct Context: Sendable {
        /// Tokens of the prompt.
        public let prompt: [Int32]
        /// Tokens of the answer so far.
        public let answer: [Int32]
    }

    private final class Body: Sendable {
        let apply: @Sendable (Context, inout [Float]) throws -> Void
        init(_ apply: @escaping @Sendable (Context, inout [Float]) throws -> Void) {
            self.apply = apply
        }
    }
    private let body: Body

    /// Wraps a closure.
    ///
    /// - Parameter apply: Changes `[V]` logits; `-infinity` forbids a token. What it throws ends the
    ///   request, as does a logit that is not a number.
    public init(_ apply: @escaping @Sendable (Context, inout [Float]) throws -> Void) {
        body = Body(apply)
    }

    func callAsFunction(_ context: Context, _ logits: inout [Float]) throws {
        try body.apply(context, &logits)
    }

    /// Whether both are copies of one processor.
    public static func == (a: LogitsProcessor, b: LogitsProcessor) -> Bool { a.body === b.body }

    /// Hashes the processor's identity.
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(body)) }
}
