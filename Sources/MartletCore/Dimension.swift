// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A tensor dimension or byte count, affine in the symbols of a step.
///
/// `constant + tokens*T + requests*B + logitRows*O + context*L`: T tokens in the step, B requests in
/// the step, O rows that need logits, L maximum context (a load option).
public struct Dimension: Sendable, Hashable, Codable, ExpressibleByIntegerLiteral {
    /// Constant part.
    public var constant: Int
    /// Factor of T.
    public var tokens: Int
    /// Factor of B.
    public var requests: Int
    /// Factor of O.
    public var logitRows: Int
    /// Factor of L.
    public var context: Int

    /// Makes `constant + tokens*T + requests*B + logitRows*O + context*L`.
    public init(
        constant: Int = 0, tokens: Int = 0, requests: Int = 0, logitRows: Int = 0, context: Int = 0
    ) {
        self.constant = constant
        self.tokens = tokens
        self.requests = requests
        self.logitRows = logitRows
        self.context = context
    }

    /// A fixed number.
    public init(integerLiteral value: Int) { self.init(constant: value) }
    /// A fixed number.
    public init(_ value: Int) { self.init(constant: value) }

    /// T, the tokens of the step.
    public static let T = Dimension(tokens: 1)
    /// B, the requests of the step.
    public static let B = Dimension(requests: 1)
    /// O, the rows of the step that need logits.
    public static let O = Dimension(logitRows: 1)
    /// L, the maximum context.
    public static let L = Dimension(context: 1)

    /// The number, if no symbol takes part.
    public var fixed: Int? {
        tokens == 0 && requests == 0 && logitRows == 0 && context == 0 ? constant : nil
    }

    /// Values of the symbols at one load or in one step.
    public struct Values: Sendable, Hashable, Codable {
        /// T.
        public var tokens: Int
        /// B.
        public var requests: Int
        /// O.
        public var logitRows: Int
        /// L.
        public var context: Int
        /// Requests of one token each in front of all others: a kernel may compute them apart.
        public var singles: Int

        /// Binds T, B, O and L.
        ///
        /// - Parameter singles: Requests of one token each in front of all others; nil for all where there are
        ///   as many tokens as requests, and else for none.
        public init(
            tokens: Int, requests: Int, logitRows: Int, context: Int, singles: Int? = nil
        ) {
            self.tokens = tokens
            self.requests = requests
            self.logitRows = logitRows
            self.context = context
            self.singles = singles ?? (tokens == requests ? requests : 0)
        }
    }

    /// The number under given symbol values, or nil where it exceeds `Int`.
    public func evaluate(_ values: Values) -> Int? {
        var total = constant
        for (factor, value) in [
            (tokens, values.tokens), (requests, values.requests), (logitRows, values.logitRows),
            (context, values.context),
        ] where factor != 0 {
            let (product, overflow) = factor.multipliedReportingOverflow(by: value)
            let (sum, overflow2) = total.addingReportingOverflow(product)
            if overflow || overflow2 { return nil }
            total = sum
        }
        return total
    }

    /// The sum, term by term; a term beyond `Int` becomes its largest or smallest number, which
    /// `evaluate` and the size checks refuse.
    public static func + (a: Dimension, b: Dimension) -> Dimension {
        func sum(_ x: Int, _ y: Int) -> Int {
            let (sum, overflow) = x.addingReportingOverflow(y)
            return overflow ? (x < 0 ? .min : .max) : sum
        }
        return Dimension(
            constant: sum(a.constant, b.constant), tokens: sum(a.tokens, b.tokens),
            requests: sum(a.requests, b.requests), logitRows: sum(a.logitRows, b.logitRows),
            context: sum(a.context, b.context))
    }

    /// The product with a number; beyond `Int` as for the sum.
    public static func * (a: Dimension, factor: Int) -> Dimension {
        func product(_ x: Int) -> Int {
            let (product, overflow) = x.multipliedReportingOverflow(by: factor)
            return overflow ? ((x < 0) == (factor < 0) ? .max : .min) : product
        }
        return Dimension(
            constant: product(a.constant), tokens: product(a.tokens),
            requests: product(a.requests), logitRows: product(a.logitRows),
            context: product(a.context))
    }
}

extension Dimension: CustomStringConvertible, LosslessStringConvertible {
    /// The form used in graph text, such as `T`, `576` or `2*T+64`.
    public var description: String {
        var parts: [String] = []
        for (factor, symbol) in [(tokens, "T"), (requests, "B"), (logitRows, "O"), (context, "L")]
        where factor != 0 {
            parts.append(factor == 1 ? symbol : "\(factor)*\(symbol)")
        }
        if constant != 0 || parts.isEmpty { parts.append("\(constant)") }
        return parts.joined(separator: "+")
    }

    /// Reads the form that `description` writes.
    public init?(_ text: String) {
        self.init()
        for part in text.split(separator: "+", omittingEmptySubsequences: false) {
            let factors = part.split(separator: "*", omittingEmptySubsequences: false)
            guard let last = factors.last, factors.count <= 2 else { return nil }
            var factor = 1
            if factors.count == 2 {
                guard let number = Int(factors[0]) else { return nil }
                factor = number
            }
            switch last {
            case "T": self = self + .T * factor
            case "B": self = self + .B * factor
            case "O": self = self + .O * factor
            case "L": self = self + .L * factor
            default:
                guard factors.count == 1, let number = Int(last) else { return nil }
                self = self + Dimension(number)
            }
        }
    }
}
