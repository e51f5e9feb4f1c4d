// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Python's arithmetic on template values.
enum JinjaArithmetic {
    static var overflow: MartletError { JinjaFailure.error("an integer exceeds 64 bits") }

    static func apply(_ symbol: String, _ left: JinjaValue, _ right: JinjaValue) throws
        -> JinjaValue
    {
        if let a = left.integer, let b = right.integer { return try integers(symbol, a, b) }
        if let a = left.number, let b = right.number { return try floats(symbol, a, b) }
        switch (symbol, left, right) {
        case (_, .undefined(let what), _), (_, _, .undefined(let what)):
            if symbol == "%", case .string = left { break }
            throw JinjaFailure.error(what)
        case ("+", .string(var a), .string(let b)):
            try JinjaLimits.check(characters: a.count + b.count)
            a.append(b)
            return .string(a)
        case ("+", .list(let a), .list(let b)):
            try JinjaLimits.check(elements: a.items.count + b.items.count)
            return .list(JinjaList(a.items + b.items))
        case ("+", .tuple(let a), .tuple(let b)):
            try JinjaLimits.check(elements: a.count + b.count)
            return .tuple(a + b)
        case ("*", _, _):
            if let count = right.integer { return try repeated(left, count, right) }
            if let count = left.integer { return try repeated(right, count, left) }
        default: break
        }
        if symbol == "%", case .string(let format) = left {
            let arguments = if case .tuple(let items) = right { items } else { [right] }
            return .string(try PythonFormat.percent(format, arguments))
        }
        throw unsupported(symbol, left, right)
    }

    private static func unsupported(_ symbol: String, _ left: JinjaValue, _ right: JinjaValue)
        -> MartletError
    {
        JinjaFailure.error(
            "unsupported operand type(s) for \(symbol): '\(left.typeName)' and '\(right.typeName)'")
    }

    private static func repeated(_ value: JinjaValue, _ count: Int, _ other: JinjaValue) throws
        -> JinjaValue
    {
        func total(_ length: Int) -> Int {
            let (product, overflow) = length.multipliedReportingOverflow(by: max(count, 0))
            return overflow ? Int.max : product
        }
        switch value {
        case .string(let text):
            try JinjaLimits.check(characters: total(text.count))
            var result = JinjaText()
            if !text.isEmpty { for _ in 0..<max(count, 0) { result.append(text) } }
            return .string(result)
        case .list(let list):
            try JinjaLimits.check(elements: total(list.items.count))
            return .list(
                JinjaList(list.items.isEmpty ? [] : (0..<max(count, 0)).flatMap { _ in list.items })
            )
        case .tuple(let items):
            try JinjaLimits.check(elements: total(items.count))
            return .tuple(items.isEmpty ? [] : (0..<max(count, 0)).flatMap { _ in items })
        default: throw unsupported("*", value, other)
        }
    }

    private static func integers(_ symbol: String, _ a: Int, _ b: Int) throws -> JinjaValue {
        func checked(_ result: (partialValue: Int, overflow: Bool)) throws -> JinjaValue {
            guard !result.overflow else { throw overflow }
            return .int(result.partialValue)
        }
        switch symbol {
        case "+": return try checked(a.addingReportingOverflow(b))
        case "-": return try checked(a.subtractingReportingOverflow(b))
        case "*": return try checked(a.multipliedReportingOverflow(by: b))
        case "/":
            guard b != 0 else { throw JinjaFailure.error("division by zero") }
            return .float(Double(a) / Double(b))
        case "//", "%":
            guard b != 0 else { throw JinjaFailure.error("integer division or modulo by zero") }
            let quotient = a.dividedReportingOverflow(by: b)
            guard !quotient.overflow else { return symbol == "%" ? .int(0) : try checked(quotient) }
            let remainder = a % b
            let isBelow = remainder != 0 && (remainder < 0) != (b < 0)
            if symbol == "//" {
                return .int(isBelow ? quotient.partialValue - 1 : quotient.partialValue)
            }
            return .int(isBelow ? remainder + b : remainder)
        default:
            if b < 0 {
                guard a != 0 else {
                    throw JinjaFailure.error("0.0 cannot be raised to a negative power")
                }
                return .float(pow(Double(a), Double(b)))
            }
            if a == 0 || a == 1 { return .int(b == 0 ? 1 : a) }
            if a == -1 { return .int(b % 2 == 0 ? 1 : -1) }
            guard b < 64 else { throw overflow }
            var result = 1
            for _ in 0..<b {
                let next = result.multipliedReportingOverflow(by: a)
                guard !next.overflow else { throw overflow }
                result = next.partialValue
            }
            return .int(result)
        }
    }

    private static func floats(_ symbol: String, _ a: Double, _ b: Double) throws -> JinjaValue {
        switch symbol {
        case "+": return .float(a + b)
        case "-": return .float(a - b)
        case "*": return .float(a * b)
        case "/":
            guard b != 0 else { throw JinjaFailure.error("float division by zero") }
            return .float(a / b)
        case "//", "%":
            guard b != 0 else { throw JinjaFailure.error("float modulo by zero") }
            var remainder = fmod(a, b)
            var quotient = (a - remainder) / b
            if remainder != 0 {
                if (b < 0) != (remainder < 0) {
                    remainder += b
                    quotient -= 1
                }
            } else {
                remainder = copysign(0, b)
            }
            if symbol == "%" { return .float(remainder) }
            if quotient == 0 { return .float(copysign(0, a / b)) }
            let floored = quotient.rounded(.down)
            return .float(quotient - floored > 0.5 ? floored + 1 : floored)
        default:
            let result = pow(a, b)
            guard !(result.isNaN && !a.isNaN && !b.isNaN),
                !(result.isInfinite && a.isFinite && b.isFinite)
            else { throw JinjaFailure.error("a power has no real number as its result") }
            return .float(result)
        }
    }
}
