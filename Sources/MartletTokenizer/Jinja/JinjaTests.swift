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
        case "none": return value.isNone
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
            case .undefined, .string, .list, .tuple, .dict, .loop, .range: return true
            default: return false
            }
        case "sequence":
            switch value {
            case .undefined, .string, .list, .tuple, .dict, .range: return true
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
        default: return a.typeName == b.typeName ? try equal(a, b) : false
        }
    }
}
