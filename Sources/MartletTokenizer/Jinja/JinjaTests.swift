// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Tests by name.
enum JinjaTests {
    /// Tests that templates may use; others are refused when a template is read.
    static let names: Set<String> = [
        "defined", "undefined", "none", "string", "number", "integer", "float", "mapping",
        "iterable", "sequence",
        "boolean", "true", "false", "callable", "in", "eq", "equalto", "ne", "lt", "lessthan", "le",
        "gt",
        "greaterthan", "ge", "odd", "even", "divisibleby", "lower", "upper", "sameas", "filter",
        "test", "==",
        "!=", "<", "<=", ">", ">=",
    ]
}

extension JinjaRenderer {
    func test(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws -> Bool {
        switch name {
        case "defined": return !value.isUndefined
        case "undefined": return value.isUndefined
        case "none":
            guard case .none = value else { return false }
            return true
        case "string":
            guard case .string = value else { return false }
            return true
        case "number": return value.number != nil
        case "integer":
            guard case .int = value else { return false }
            return true
        case "float":
            guard case .float = value else { return false }
            return true
        case "boolean":
            guard case .bool = value else { return false }
            return true
        case "true":
            guard case .bool(true) = value else { return false }
            return true
        case "false":
            guard case .bool(false) = value else { return false }
            return true
        case "mapping":
            guard case .dict = value else { return false }
            return true
        case "callable":
            guard case .callable = value else { return false }
            return true
        case "iterable":
            switch value {
            case .undefined, .string, .list, .tuple, .dict, .loop: return true
            default: return false
            }
        case "sequence":
            switch value {
            case .undefined, .string, .list, .tuple, .dict: return true
            default: return false
            }
        case "lower", "upper":
            let text = try value.printed()
            guard case .callable(let method)? = stringMethod(text, "is" + name) else {
                return false
            }
            return try method.body(self, JinjaArguments()).isTrue
        case "odd", "even", "divisibleby":
            let divisor = name == "divisibleby" ? try argument(name, arguments) : .int(2)
            let rest = try JinjaArithmetic.apply("%", value, divisor)
            return try rest.equals(.int(name == "odd" ? 1 : 0))
        case "filter": return JinjaFilters.names.contains(try value.printed().string)
        case "test": return JinjaTests.names.contains(try value.printed().string)
        case "sameas": return try isSame(value, argument(name, arguments))
        default:
            let symbols = [
                "eq": "==", "equalto": "==", "ne": "!=", "lt": "<", "lessthan": "<", "le": "<=",
                "gt": ">",
                "greaterthan": ">", "ge": ">=",
            ]
            return try compare(value, symbols[name] ?? name, argument(name, arguments))
        }
    }

    private func argument(_ name: String, _ arguments: JinjaArguments) throws -> JinjaValue {
        guard let value = arguments.positional.first else {
            throw JinjaFailure.error("the test '\(name)' expects an argument")
        }
        return value
    }

    private func isSame(_ a: JinjaValue, _ b: JinjaValue) throws -> Bool {
        switch (a, b) {
        case (.list(let a), .list(let b)): return a === b
        case (.dict(let a), .dict(let b)): return a === b
        case (.bool(let a), .bool(let b)): return a == b
        case (.bool, _), (_, .bool): return false
        default: return a.typeName == b.typeName ? try a.equals(b) : false
        }
    }
}

/// Functions that every template sees.
enum JinjaGlobals {
    static var functions: [String: JinjaValue] {
        var table: [String: JinjaValue] = [:]
        func add(
            _ name: String, _ body: @escaping (JinjaRenderer, JinjaArguments) throws -> JinjaValue
        ) {
            table[name] = .callable(JinjaCallable(name, body))
        }
        add("range") { _, arguments in try range(arguments) }
        add("namespace") { renderer, arguments in .namespace(try dict(renderer, arguments)) }
        add("dict") { renderer, arguments in .dict(try dict(renderer, arguments)) }
        add("raise_exception") { _, arguments in
            throw JinjaFailure.error(
                try arguments.value(0, "message")?.printed().string ?? "raised an exception")
        }
        return table
    }

    private static func range(_ arguments: JinjaArguments) throws -> JinjaValue {
        let numbers = try arguments.positional.map { value in
            guard let number = value.integer else {
                throw JinjaFailure.error(
                    "'\(value.typeName)' object cannot be interpreted as an integer")
            }
            return number
        }
        guard (1...3).contains(numbers.count) else {
            throw JinjaFailure.error("range expected 1 to 3 arguments, got \(numbers.count)")
        }
        let start = numbers.count == 1 ? 0 : numbers[0]
        let stop = numbers.count == 1 ? numbers[0] : numbers[1]
        let step = numbers.count == 3 ? numbers[2] : 1
        guard step != 0 else { throw JinjaFailure.error("range() arg 3 must not be zero") }
        var items: [JinjaValue] = []
        var next = start
        while step > 0 ? next < stop : next > stop {
            guard items.count < JinjaLimits.range else {
                throw JinjaFailure.error(
                    "Range too big. The sandbox blocks ranges larger than \(JinjaLimits.range).")
            }
            items.append(.int(next))
            let (sum, overflow) = next.addingReportingOverflow(step)
            if overflow { break }
            next = sum
        }
        return .list(JinjaList(items))
    }

    private static func dict(_ renderer: JinjaRenderer, _ arguments: JinjaArguments) throws
        -> JinjaDict
    {
        let dict = JinjaDict()
        if case .dict(let source)? = arguments.positional.first {
            for (key, value) in zip(source.keys, source.values) {
                dict.set(key, try renderer.hashed(key), value)
            }
        } else if let pairs = arguments.positional.first {
            for pair in try pairs.elements() {
                let parts = try pair.elements()
                guard parts.count == 2 else { throw JinjaFailure.error("dict expects pairs") }
                dict.set(parts[0], try renderer.hashed(parts[0]), parts[1])
            }
        }
        for (name, value) in arguments.named { dict.set(name, value) }
        return dict
    }
}
