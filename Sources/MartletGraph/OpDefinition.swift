// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// What an op is: operands, attributes, type rule, and for fused ops what they stand for.
public struct OpDefinition: Sendable {
    /// An operand's name and whether it may be absent.
    public struct Operand: Sendable {
        /// Name, for messages.
        public let name: String
        /// Whether it may be absent.
        public let isOptional: Bool
        /// Describes an operand; a trailing `?` in the text marks an optional one.
        public init(_ text: String) {
            isOptional = text.hasSuffix("?")
            name = isOptional ? String(text.dropLast()) : text
        }
    }

    /// Name in graph text.
    public let name: String
    /// One line: what it computes.
    public let summary: String
    /// Operands in order.
    public let operands: [Operand]
    /// Whether the last operand may repeat.
    public let isVariadic: Bool
    /// Attribute names that must be present.
    public let requiredAttributes: [String]
    /// Attribute names that may be present.
    public let optionalAttributes: [String]
    /// Whether the node may be dropped when nothing reads it, and merged with an equal one.
    public let isPure: Bool
    /// Result types from operand types and attributes.
    public let infer: @Sendable (OpContext) throws -> [TensorType]
    /// For fused ops: inserts the plain form before the node and returns its results.
    public let decompose: (@Sendable (Node, inout Graph) throws -> [ValueID])?

    /// Defines an op; see the properties.
    ///
    /// - Parameter operands: Names in order; a trailing `?` marks an optional one.
    public init(
        _ name: String, _ summary: String, operands: [String], isVariadic: Bool = false,
        attributes: [String] = [], optionalAttributes: [String] = [], isPure: Bool = true,
        decompose: (@Sendable (Node, inout Graph) throws -> [ValueID])? = nil,
        infer: @escaping @Sendable (OpContext) throws -> [TensorType]
    ) {
        self.name = name
        self.summary = summary
        self.operands = operands.map(Operand.init)
        self.isVariadic = isVariadic
        requiredAttributes = attributes
        self.optionalAttributes = optionalAttributes
        self.isPure = isPure
        self.infer = infer
        self.decompose = decompose
    }
}

/// The ops a graph may use: a value, so that a user can add to it.
public struct OpSet: Sendable {
    private let table: [String: OpDefinition]

    /// Collects definitions; a later one of the same name wins.
    public init(_ definitions: [OpDefinition]) {
        table = Dictionary(definitions.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    }

    /// The ops of Martlet.
    public static let builtIn = OpSet(
        OpSet.sources + OpSet.linearOps + OpSet.fusedLinearOps + OpSet.normOps
            + OpSet.elementwiseOps + OpSet.attentionOps
            + OpSet.shapeOps + OpSet.numericOps + OpSet.outputOps + OpSet.collectiveOps)

    /// These ops and one more.
    public static func + (a: OpSet, b: [OpDefinition]) -> OpSet {
        OpSet(Array(a.table.values) + b)
    }

    /// All definitions, by name.
    public var definitions: [OpDefinition] { table.values.sorted { $0.name < $1.name } }

    /// Looks an op up.
    ///
    /// - Throws: `MartletError` `.unsupported` if there is none of that name.
    public func definition(of name: String) throws -> OpDefinition {
        guard let definition = table[name] else {
            throw MartletError(.unsupported, "there is no op named '\(name)'")
        }
        return definition
    }
}

/// Types and attributes of one node, with checks that read as sentences.
public struct OpContext: Sendable {
    /// Op name.
    public let op: String
    /// Operand types; nil where absent.
    public let operands: [TensorType?]
    /// The node's attributes.
    public let attributes: [String: AttributeValue]

    /// A failure of this node.
    public func failure(_ message: String) -> MartletError {
        MartletError(.shapeMismatch, "\(op): \(message)")
    }

    /// The type of an operand that must be there.
    public func operand(_ index: Int) throws -> TensorType {
        guard operands.indices.contains(index), let type = operands[index] else {
            throw failure("operand \(index) is missing")
        }
        return type
    }

    /// The type of an operand, nil where absent.
    public func optional(_ index: Int) -> TensorType? {
        operands.indices.contains(index) ? operands[index] : nil
    }

    /// An integer attribute.
    public func int(_ name: String) throws -> Int {
        guard let value = attributes[name]?.int else { throw failure("needs an integer '\(name)'") }
        return value
    }

    /// The product of two integer attributes.
    public func product(_ first: String, _ second: String) throws -> Int {
        let (a, b) = (try int(first), try int(second))
        let (product, overflow) = a.multipliedReportingOverflow(by: b)
        guard !overflow else {
            throw failure("'\(first)' \(a) times '\(second)' \(b) is too large")
        }
        return product
    }

    /// A text attribute out of a closed set.
    public func word(_ name: String, of allowed: [String]) throws -> String {
        guard let value = attributes[name]?.string, allowed.contains(value) else {
            throw failure("'\(name)' must be one of \(allowed.joined(separator: ", "))")
        }
        return value
    }

    /// A dtype attribute, or a default.
    public func dtype(_ name: String, default fallback: DType) throws -> DType {
        guard let text = attributes[name] else { return fallback }
        guard let type = text.string.flatMap(DType.init(rawValue:)) else {
            throw failure("'\(name)' is not a dtype")
        }
        return type
    }

    /// Columns of a matrix operand, which must be fixed.
    public func columns(_ type: TensorType) throws -> Int {
        guard let columns = type.columns else { throw failure("\(type) has no fixed columns") }
        return columns
    }

    /// Fails unless a statement holds.
    public func require(_ holds: Bool, _ message: @autoclosure () -> String) throws {
        if !holds { throw failure(message()) }
    }

    /// The dtype that plain results of quantized or plain input take.
    public func resultType(_ input: TensorType) throws -> DType {
        try dtype("dtype", default: input.format.dtype ?? .f32)
    }

    /// The format of a result that attribute `format` may have quantized.
    public func quantizedFormat(_ plain: DType) throws -> ElementFormat {
        guard let text = attributes["format"] else { return .plain(plain) }
        guard let format = text.string.flatMap(ActivationFormat.init(rawValue:)) else {
            throw failure("'format' is not an activation format")
        }
        return .activation(format)
    }
}
