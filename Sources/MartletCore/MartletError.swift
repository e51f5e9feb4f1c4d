// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// The one error type of the public interface: what happened, where, and what mends it.
public struct MartletError: Error, Sendable, CustomStringConvertible {
    /// A kind of failure, extensible without breaking exhaustive switches.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        /// Stable word, printed by tools.
        public let name: String
        /// Process exit code of the command line for this kind of failure.
        public let exitCode: Int32

        init(_ name: String, exit: Int32) {
            self.name = name
            self.exitCode = exit
        }

        /// The stable word.
        public var description: String { name }

        /// A check that the user asked for failed.
        public static let checkFailed = Code("check-failed", exit: 1)
        /// A flag, an option or an argument is wrong.
        public static let invalidArgument = Code("invalid-argument", exit: 2)
        /// A file, model or tensor does not exist.
        public static let notFound = Code("not-found", exit: 3)
        /// A file's content is damaged or breaks its format.
        public static let corrupt = Code("corrupt", exit: 4)
        /// A well-formed input asks for something Martlet does not do.
        public static let unsupported = Code("unsupported", exit: 5)
        /// Shapes or types do not fit together.
        public static let shapeMismatch = Code("shape-mismatch", exit: 4)
        /// A limit (context, batch, memory) is exceeded.
        public static let limitExceeded = Code("limit-exceeded", exit: 6)
        /// A network transfer failed.
        public static let network = Code("network", exit: 7)
        /// Reading or writing a file failed.
        public static let io = Code("io", exit: 8)
        /// A device or backend failed.
        public static let device = Code("device", exit: 9)
        /// Stopped by the user.
        public static let cancelled = Code("cancelled", exit: 130)
        /// A state that should not occur: a defect of Martlet.
        public static let internalError = Code("internal", exit: 70)
    }

    /// Kind of failure.
    public var code: Code
    /// One line that says what happened, with the wrong number and the limit.
    public var message: String
    /// The flag or command that mends it, if one is known.
    public var mend: String?
    /// Facts for tools and logs, such as `file`, `tensor`, `offset`.
    public var context: [String: String]
    /// The failure beneath, if any.
    public var cause: (any Error)?

    /// Describes a failure.
    ///
    /// - Parameters:
    ///   - code: Kind of failure.
    ///   - message: One line, no trailing period needed.
    ///   - mend: What the reader can do about it.
    ///   - context: Facts by name.
    ///   - cause: The failure beneath.
    public init(
        _ code: Code, _ message: String, mend: String? = nil, context: [String: String] = [:],
        cause: (any Error)? = nil
    ) {
        self.code = code
        self.message = message
        self.mend = mend
        self.context = context
        self.cause = cause
    }

    /// One line a user can act on.
    public var description: String {
        var text = message
        if let name = context["parameter"], !message.contains(name) { text = "\(name): \(text)" }
        if let file = context["file"], !message.contains(file) { text = "\(file): \(text)" }
        if let cause { text += ": \(cause)" }
        if let mend { text += (text.hasSuffix(".") ? " " : ". ") + mend }
        return text
    }

    /// The same failure with something that mends it; what it says already stays.
    public func mending(_ mend: String) -> MartletError {
        var copy = self
        if copy.mend == nil { copy.mend = mend }
        return copy
    }

    /// The same failure with one more fact; an existing fact of that name stays.
    public func adding(_ key: String, _ value: String) -> MartletError {
        var copy = self
        if copy.context[key] == nil { copy.context[key] = value }
        return copy
    }
}
