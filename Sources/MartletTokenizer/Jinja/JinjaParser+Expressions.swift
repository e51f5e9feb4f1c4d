// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JinjaParser {
    /// An expression, or a tuple where commas follow.
    mutating func tuple(
        withCondition: Bool = true, end: String? = nil, isParenthesized: Bool = false
    ) throws -> JinjaExpression {
        var items: [JinjaExpression] = []
        var isTuple = false
        while !isTupleEnd(end) {
            items.append(withCondition ? try expression() : try nested { try $0.or() })
            guard skip(",") else { break }
            isTuple = true
        }
        if !isTuple {
            if let first = items.first { return first }
            if !isParenthesized { throw failure("expected an expression, got \(current)") }
        }
        return .tuple(items)
    }

    private func isTupleEnd(_ end: String?) -> Bool {
        switch current {
        case .outputEnd, .tagEnd, .symbol(")"): true
        case .name(let name): name == end
        default: false
        }
    }

    mutating func expression() throws -> JinjaExpression { try nested { try $0.condition() } }

    private mutating func condition() throws -> JinjaExpression {
        var result = try or()
        while skipName("if") {
            let test = try or()
            let otherwise = skipName("else") ? try expression() : nil
            result = .condition(test: test, value: result, otherwise: otherwise)
        }
        return result
    }

    private mutating func or() throws -> JinjaExpression {
        var left = try and()
        while skipName("or") { left = .or(left, try and()) }
        return left
    }

    private mutating func and() throws -> JinjaExpression {
        var left = try not()
        while skipName("and") { left = .and(left, try not()) }
        return left
    }

    private mutating func not() throws -> JinjaExpression {
        if skipName("not") { return .not(try nested { try $0.not() }) }
        return try compare()
    }

    private mutating func compare() throws -> JinjaExpression {
        let left = try sum()
        var rest: [(symbol: String, operand: JinjaExpression)] = []
        while true {
            if case .symbol(let symbol) = current,
                ["==", "!=", "<", "<=", ">", ">="].contains(symbol)
            {
                index += 1
                rest.append((symbol, try sum()))
            } else if skipName("in") {
                rest.append(("in", try sum()))
            } else if current == .name("not"), following == .name("in") {
                index += 2
                rest.append(("not in", try sum()))
            } else {
                return rest.isEmpty ? left : .compare(left, rest)
            }
        }
    }

    private mutating func sum() throws -> JinjaExpression {
        var left = try concat()
        while case .symbol(let symbol) = current, symbol == "+" || symbol == "-" {
            index += 1
            left = .arithmetic(symbol, left, try concat())
        }
        return left
    }

    private mutating func concat() throws -> JinjaExpression {
        var parts = [try product()]
        while skip("~") { parts.append(try product()) }
        return parts.count == 1 ? parts[0] : .concat(parts)
    }

    private mutating func product() throws -> JinjaExpression {
        var left = try power()
        while case .symbol(let symbol) = current, ["*", "/", "//", "%"].contains(symbol) {
            index += 1
            left = .arithmetic(symbol, left, try power())
        }
        return left
    }

    private mutating func power() throws -> JinjaExpression {
        var left = try unary(withFilters: true)
        while skip("**") { left = .arithmetic("**", left, try unary(withFilters: true)) }
        return left
    }

    private mutating func unary(withFilters: Bool) throws -> JinjaExpression {
        var result: JinjaExpression
        if skip("-") {
            result = .sign(isMinus: true, operand: try nested { try $0.unary(withFilters: false) })
        } else if skip("+") {
            result = .sign(isMinus: false, operand: try nested { try $0.unary(withFilters: false) })
        } else {
            result = try primary()
        }
        result = try postfix(result)
        return withFilters ? try filtersAndTests(result) : result
    }

    private mutating func primary() throws -> JinjaExpression {
        let token = current
        index += 1
        switch token {
        case .name(let name):
            switch name {
            case "true", "True": return .bool(true)
            case "false", "False": return .bool(false)
            case "none", "None": return .none
            default:
                read(name)
                return .name(name)
            }
        case .string(var text):
            while case .string(let more) = current {
                text += more
                index += 1
            }
            return .string(text)
        case .int(let value): return .int(value)
        case .float(let value): return .float(value)
        case .symbol("("):
            let inner = try nested { try $0.tuple(isParenthesized: true) }
            try expect(.symbol(")"))
            return inner
        case .symbol("["):
            var items: [JinjaExpression] = []
            while current != .symbol("]") {
                items.append(try expression())
                guard skip(",") else { break }
            }
            try expect(.symbol("]"))
            return .list(items)
        case .symbol("{"):
            var items: [(key: JinjaExpression, value: JinjaExpression)] = []
            while current != .symbol("}") {
                let key = try expression()
                try expect(.symbol(":"))
                items.append((key, try expression()))
                guard skip(",") else { break }
            }
            try expect(.symbol("}"))
            return .dict(items)
        default:
            index -= 1
            throw failure("unexpected \(token)")
        }
    }

    private mutating func postfix(_ start: JinjaExpression) throws -> JinjaExpression {
        var result = start
        var count = 0
        while true {
            // Chains nest in the tree, so they count as depth.
            count += 1
            guard count < JinjaLimits.depth else { throw JinjaLimits.depthError }
            if skip(".") {
                if case .int(let number) = current {
                    index += 1
                    result = .subscripted(result, .int(number))
                } else {
                    result = .attribute(result, try expectName())
                }
            } else if skip("[") {
                result = try subscripted(result)
            } else if current == .symbol("(") {
                result = .call(result, try arguments())
            } else {
                return result
            }
        }
    }

    private mutating func subscripted(_ base: JinjaExpression) throws -> JinjaExpression {
        var start: JinjaExpression?
        if current != .symbol(":") {
            let first = try expression()
            if current != .symbol(":") {
                var items = [first]
                while skip(",") { items.append(try expression()) }
                try expect(.symbol("]"))
                return .subscripted(base, items.count == 1 ? first : .tuple(items))
            }
            start = first
        }
        try expect(.symbol(":"))
        var stop: JinjaExpression?
        var step: JinjaExpression?
        if current != .symbol(":"), current != .symbol("]") { stop = try expression() }
        if skip(":"), current != .symbol("]") { step = try expression() }
        try expect(.symbol("]"))
        return .slice(base, start: start, stop: stop, step: step)
    }

    mutating func arguments() throws -> JinjaCallSyntax {
        var call = JinjaCallSyntax()
        try expect(.symbol("("))
        while !skip(")") {
            if !call.positional.isEmpty || !call.named.isEmpty {
                try expect(.symbol(","))
                if skip(")") { break }
            }
            if current == .symbol("*") || current == .symbol("**") {
                throw JinjaFailure.unsupported("unpacking arguments with *", line: line)
            }
            if case .name(let name) = current, following == .symbol("=") {
                index += 2
                call.named.append((name, try expression()))
            } else {
                guard call.named.isEmpty else {
                    throw failure("a positional argument after a named one")
                }
                call.positional.append(try expression())
            }
        }
        return call
    }

    private mutating func filtersAndTests(_ start: JinjaExpression) throws -> JinjaExpression {
        var result = start
        var count = 0
        while true {
            count += 1
            guard count < JinjaLimits.depth else { throw JinjaLimits.depthError }
            if current == .symbol("|") {
                result = try filterChain(result, startsWithName: false)
            } else if skipName("is") {
                result = try test(result)
            } else if current == .symbol("(") {
                result = .call(result, try arguments())
            } else {
                return result
            }
        }
    }

    mutating func filterChain(_ start: JinjaExpression, startsWithName: Bool) throws
        -> JinjaExpression
    {
        var result = start
        var isFirst = startsWithName
        var count = 0
        while isFirst || skip("|") {
            isFirst = false
            count += 1
            guard count < JinjaLimits.depth else { throw JinjaLimits.depthError }
            let name = try expectName()
            guard JinjaFilters.names.contains(name) else {
                throw JinjaFailure.unsupported("the filter '\(name)'", line: line)
            }
            result = .filter(
                result, name, current == .symbol("(") ? try arguments() : JinjaCallSyntax())
        }
        return result
    }

    private mutating func test(_ operand: JinjaExpression) throws -> JinjaExpression {
        let isNegated = skipName("not")
        let name = try expectName()
        guard JinjaTests.names.contains(name) else {
            throw JinjaFailure.unsupported("the test '\(name)'", line: line)
        }
        var call = JinjaCallSyntax()
        switch current {
        case .symbol("("): call = try arguments()
        case .name("else"), .name("or"), .name("and"): break
        case .name("is"): throw failure("tests cannot be chained with 'is'")
        case .name, .string, .int, .float, .symbol("["), .symbol("{"):
            // `if` and `in` read on as the argument in jinja2 as well.
            call.positional = [try postfix(try primary())]
        default: break
        }
        let test = JinjaExpression.test(operand, name, call)
        return isNegated ? .not(test) : test
    }
}
