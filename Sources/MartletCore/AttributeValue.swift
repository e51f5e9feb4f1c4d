// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A constant attached to a graph node or a plan step.
public enum AttributeValue: Sendable, Hashable {
    /// An integer.
    case int(Int)
    /// A number; always printed with a point or an exponent.
    case float(Double)
    /// A truth value.
    case bool(Bool)
    /// A word or a text.
    case string(String)
    /// Integers.
    case ints([Int])
}

extension AttributeValue {
    /// The integer, if it is one.
    public var int: Int? { if case .int(let value) = self { value } else { nil } }
    /// The number; an integer counts.
    public var float: Double? {
        switch self {
        case .float(let value): value
        case .int(let value): Double(value)
        default: nil
        }
    }
    /// The truth value, if it is one.
    public var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The text, if it is one.
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    /// The integers, if it is a list.
    public var ints: [Int]? { if case .ints(let value) = self { value } else { nil } }
}

extension AttributeValue: ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByStringLiteral
{
    /// An integer.
    public init(integerLiteral value: Int) { self = .int(value) }
    /// A number.
    public init(floatLiteral value: Double) { self = .float(value) }
    /// A truth value.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// A text.
    public init(stringLiteral value: String) { self = .string(value) }
}

extension AttributeValue: Codable {
    /// Reads a JSON scalar or a list of integers.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(String.self) {
            // Numbers that are not integers are written as text, which keeps every bit.
            if value.hasPrefix("f:"), let number = Double(value.dropFirst(2)) {
                self = .float(number)
            } else {
                self = .string(value.hasPrefix("s:") ? String(value.dropFirst(2)) : value)
            }
        } else if let value = try? container.decode(Int.self) {
            self = .int(value)
        } else {
            self = .ints(try container.decode([Int].self))
        }
    }

    /// Writes a JSON scalar or a list of integers.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .int(let value): try container.encode(value)
        case .float(let value): try container.encode("f:\(value)")
        case .bool(let value): try container.encode(value)
        case .string(let value): try container.encode("s:" + value)
        case .ints(let value): try container.encode(value)
        }
    }
}
