// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Filters on sequences and numbers.
extension JinjaRenderer {
    func sequenceFilter(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments
    ) throws -> JinjaValue {
        switch name {
        case "map": return .list(JinjaList(try mapped(value, arguments)))
        case "select", "reject", "selectattr", "rejectattr":
            return .list(JinjaList(try selected(name, value, arguments)))
        case "dictsort": return try dictSorted(value, arguments)
        case "sort":
            let isReversed = arguments.value(0, "reverse")?.isTrue ?? false
            let keyed = try keys(of: value, arguments, caseAt: 1, attributeAt: 2)
            return .list(JinjaList(try sorted(keyed, isReversed)))
        case "unique":
            var seen = Set<JinjaKey>()
            let keyed = try keys(of: value, arguments, caseAt: 0, attributeAt: 1)
            return .list(
                JinjaList(try keyed.filter { try seen.insert(hashed($0.key)).inserted }.map(\.item))
            )
        case "min", "max":
            let keyed = try keys(of: value, arguments, caseAt: 0, attributeAt: 1)
            guard var best = keyed.first else {
                return .undefined("No aggregated item, sequence was empty.")
            }
            for next in keyed.dropFirst() {
                let isBetter =
                    name == "min"
                    ? try less(next.key, best.key) : try less(best.key, next.key, ">")
                if isBetter { best = next }
            }
            return best.item
        case "sum":
            var items = try value.elements()
            if let attribute = arguments.value(0, "attribute"), case .string = attribute {
                items = try items.map { try path(attribute, of: $0) }
            }
            return try items.reduce(arguments.value(1, "start") ?? .int(0)) {
                try JinjaArithmetic.apply("+", $0, $1)
            }
        default: throw JinjaFailure.error("no filter named '\(name)'")
        }
    }

    private func mapped(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> [JinjaValue] {
        let items = try value.elements()
        if arguments.positional.isEmpty, let attribute = arguments.value(0, "attribute") {
            let fallback = arguments.named.first { $0.name == "default" }?.value
            return try items.map { element in
                let found = try path(attribute, of: element)
                return found.isUndefined ? fallback ?? found : found
            }
        }
        guard case .string(let name)? = arguments.positional.first,
            JinjaFilters.names.contains(name.string)
        else {
            throw JinjaFailure.error("map expects attribute= or the name of a filter")
        }
        var rest = arguments
        rest.positional.removeFirst()
        return try items.map { item in
            let value = try filter(name.string, item, rest)
            try charge(value)
            return value
        }
    }

    private func selected(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments
    ) throws -> [JinjaValue] {
        guard value.isTrue else { return [] }
        var rest = arguments
        var attribute: JinjaValue?
        if name.hasSuffix("attr") {
            guard !rest.positional.isEmpty else {
                throw JinjaFailure.error("\(name) expects an attribute")
            }
            attribute = rest.positional.removeFirst()
        }
        var testName: String?
        if !rest.positional.isEmpty {
            guard case .string(let text) = rest.positional.removeFirst(),
                JinjaTests.names.contains(text.string)
            else { throw JinjaFailure.error("\(name) expects the name of a test") }
            testName = text.string
        }
        let wanted = name.hasPrefix("select")
        return try value.elements().filter { element in
            let subject = try attribute.map { try path($0, of: element) } ?? element
            let result = try testName.map { try test($0, subject, rest) } ?? subject.isTrue
            return result == wanted
        }
    }

    func folded(_ value: JinjaValue, _ isCaseSensitive: Bool) -> JinjaValue {
        if !isCaseSensitive, case .string(let text) = value { return .string(text.lowercased) }
        return value
    }

    typealias Keyed = (key: JinjaValue, item: JinjaValue)

    private func keys(
        of value: JinjaValue, _ arguments: JinjaArguments, caseAt: Int, attributeAt: Int
    ) throws -> [Keyed] {
        let isCaseSensitive = arguments.value(caseAt, "case_sensitive")?.isTrue ?? false
        let attribute = arguments.value(attributeAt, "attribute")
        return try value.elements().map { element in
            var key = element
            if let attribute {
                if case .none = attribute {} else { key = try path(attribute, of: element) }
            }
            return (folded(key, isCaseSensitive), element)
        }
    }

    /// Sorts stably, as Python does, also in reverse.
    func sorted(_ keyed: [Keyed], _ isReversed: Bool) throws -> [JinjaValue] {
        let source = isReversed ? keyed.reversed() : keyed
        let result = try source.enumerated().sorted { a, b in
            if try less(a.element.key, b.element.key) { return true }
            if try less(b.element.key, a.element.key) { return false }
            return a.offset < b.offset
        }.map(\.element.item)
        return isReversed ? result.reversed() : result
    }

    private func dictSorted(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        guard case .dict(let dict) = value else {
            throw JinjaFailure.error("dictsort expects a mapping")
        }
        let isCaseSensitive = arguments.value(0, "case_sensitive")?.isTrue ?? false
        let by = try arguments.value(1, "by")?.printed().string ?? "key"
        guard by == "key" || by == "value" else {
            throw JinjaFailure.error("You can only sort by either \"key\" or \"value\"")
        }
        let keyed: [Keyed] = zip(dict.keys, dict.values).map { key, value in
            (folded(by == "key" ? key : value, isCaseSensitive), .tuple([key, value]))
        }
        return .list(JinjaList(try sorted(keyed, arguments.value(2, "reverse")?.isTrue ?? false)))
    }

    func numberFilter(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws
        -> JinjaValue
    {
        switch name {
        case "int": return toInteger(value, arguments)
        case "float":
            if let number = value.number { return .float(number) }
            if case .string(let text) = value, let number = PythonNumber.parse(text) {
                return .float(number)
            }
            return arguments.value(0, "default") ?? .float(0)
        case "abs":
            if let number = value.integer {
                guard number != Int.min else { throw JinjaArithmetic.overflow }
                return .int(abs(number))
            }
            guard case .float(let number) = value else {
                throw JinjaFailure.error("bad operand type for abs(): '\(value.typeName)'")
            }
            return .float(number.magnitude)
        default: return try rounded(value, arguments)
        }
    }

    private func toInteger(_ value: JinjaValue, _ arguments: JinjaArguments) -> JinjaValue {
        let fallback = arguments.value(0, "default") ?? .int(0)
        if let number = value.integer { return .int(number) }
        var number: Double?
        if case .float(let float) = value { number = float }
        if case .string(let text) = value {
            let base = arguments.value(1, "base")?.integer ?? 10
            if let whole = PythonNumber.parseInteger(text, base: base) { return .int(whole) }
            number = PythonNumber.parse(text)
        }
        guard let number, let whole = Int(exactly: number.rounded(.towardZero)) else {
            return fallback
        }
        return .int(whole)
    }

    private func rounded(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        let digits = arguments.value(0, "precision")?.integer ?? 0
        let method = try arguments.value(1, "method")?.printed().string ?? "common"
        guard let number = value.number else {
            throw JinjaFailure.error("type \(value.typeName) doesn't define __round__ method")
        }
        guard (-300...300).contains(digits) else {
            throw JinjaFailure.error("round: precision \(digits)")
        }
        let scale = try JinjaArithmetic.apply("**", .int(10), .int(digits)).number ?? 1
        switch method {
        case "common":
            if let whole = value.integer, digits >= 0 { return .int(whole) }
            guard digits >= 0 else {
                throw JinjaFailure.error("round with a negative precision is not supported")
            }
            return .float(Double(PythonFormat.fixed(number, digits)) ?? number)
        case "ceil", "floor":
            let result = (number * scale).rounded(method == "ceil" ? .up : .down)
            return .float(result / scale)
        default: throw JinjaFailure.error("method must be common, ceil or floor")
        }
    }
}

extension PythonNumber {
    private static func digits(_ text: JinjaText) -> String? {
        let string = text.stripped().string
        // Underscores may stand between digits only.
        let bytes = Array(string.utf8)
        for (index, byte) in bytes.enumerated() where byte == UInt8(ascii: "_") {
            guard index > 0, index + 1 < bytes.count, bytes[index - 1] != byte,
                bytes[index + 1] != byte
            else {
                return nil
            }
        }
        return String(decoding: bytes.filter { $0 != UInt8(ascii: "_") }, as: UTF8.self)
    }

    /// `float(text)`, nil where Python raises.
    static func parse(_ text: JinjaText) -> Double? {
        guard let string = digits(text)?.lowercased() else { return nil }
        switch string {
        case "inf", "+inf", "infinity", "+infinity": return .infinity
        case "-inf", "-infinity": return -.infinity
        case "nan", "+nan", "-nan": return .nan
        default: break
        }
        guard string.utf8.allSatisfy({ "0123456789+-.e".utf8.contains($0) }) else { return nil }
        if let value = Double(string) { return value }
        // Python allows a missing part on one side of the point.
        let patched = string.replacing(".e", with: ".0e")
        return Double(patched.hasSuffix(".") && patched.utf8.count > 1 ? patched + "0" : patched)
    }

    /// `int(text, base)`, nil where Python raises or the number exceeds 64 bits.
    static func parseInteger(_ text: JinjaText, base: Int) -> Int? {
        guard (2...36).contains(base), var string = digits(text)?.lowercased() else { return nil }
        let prefixes = [16: "0x", 8: "0o", 2: "0b"]
        let isNegative = string.hasPrefix("-")
        if isNegative || string.hasPrefix("+") { string.removeFirst() }
        if string.hasPrefix("-") || string.hasPrefix("+") { return nil }
        if let prefix = prefixes[base], string.hasPrefix(prefix) { string.removeFirst(2) }
        return Int((isNegative ? "-" : "") + string, radix: base)
    }
}
