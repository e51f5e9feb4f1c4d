// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension JinjaRenderer {
    func evaluate(_ expression: JinjaExpression) throws -> JinjaValue {
        try visit()
        let value = try deeper { try evaluateNode(expression) }
        switch expression {
        case .concat, .arithmetic, .slice, .list, .tuple, .dict, .filter, .call:
            try charge(value)
        default: break
        }
        return value
    }

    private func evaluateNode(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression {
        case .none: return .none
        case .bool(let flag): return .bool(flag)
        case .int(let number): return .int(number)
        case .float(let number): return .float(number)
        case .string(let text): return .text(text)
        case .blockText: return .string(currentBlockText)
        case .name(let name): return scope.find(name) ?? .undefined("'\(name)' is undefined")
        case .list(let items): return .list(JinjaList(try items.map { try evaluate($0) }))
        case .tuple(let items): return .tuple(try items.map { try evaluate($0) })
        case .dict(let items): return try dict(items)
        case .not(let operand): return .bool(try !evaluate(operand).isTrue)
        case .and(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? try evaluate(right) : value
        case .or(let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? value : try evaluate(right)
        case .condition(let test, let value, let otherwise):
            if try evaluate(test).isTrue { return try evaluate(value) }
            if let otherwise { return try evaluate(otherwise) }
            return .undefined(
                "the inline if-expression evaluated to false and no else section was defined")
        case .attribute(let base, let name): return try attribute(evaluate(base), name)
        case .subscripted(let base, let key): return try item(evaluate(base), evaluate(key))
        case .call(let callee, let arguments):
            let function = try evaluate(callee)
            return try call(function, evaluate(arguments))
        case .filter(let operand, let name, let arguments):
            let value = try evaluate(operand)
            return try filter(name, value, evaluate(arguments))
        case .test(let operand, let name, let arguments):
            let value = try evaluate(operand)
            return .bool(try test(name, value, evaluate(arguments)))
        default: return try evaluateOperator(expression)
        }
    }

    @inline(never)
    private func evaluateOperator(_ expression: JinjaExpression) throws -> JinjaValue {
        switch expression {
        case .sign(let isMinus, let operand): return try signed(evaluate(operand), isMinus: isMinus)
        case .arithmetic(let symbol, let left, let right):
            let a = try evaluate(left)
            return try JinjaArithmetic.apply(symbol, a, evaluate(right))
        case .concat(let parts):
            var text = JinjaText()
            for part in parts {
                let next = try evaluate(part).printed()
                try JinjaLimits.check(characters: text.count + next.count)
                text.append(next)
            }
            return .string(text)
        case .compare(let first, let rest):
            var left = try evaluate(first)
            for (symbol, operand) in rest {
                let right = try evaluate(operand)
                if try !compare(left, symbol, right) { return .bool(false) }
                left = right
            }
            return .bool(true)
        case .slice(let base, let start, let stop, let step):
            func bound(_ part: JinjaExpression?) throws -> Int? {
                guard let part else { return nil }
                let value = try evaluate(part)
                if case .none = value { return nil }
                guard let number = value.integer else {
                    throw JinjaFailure.error("slice indices must be integers or None")
                }
                return number
            }
            let value = try evaluate(base)
            return try slice(value, bound(start), bound(stop), bound(step))
        default: return .none
        }
    }

    func evaluate(_ call: JinjaCallSyntax) throws -> JinjaArguments {
        JinjaArguments(
            positional: try call.positional.map { try evaluate($0) },
            named: try call.named.map { ($0.name, try evaluate($0.value)) })
    }

    private func dict(_ items: [(key: JinjaExpression, value: JinjaExpression)]) throws
        -> JinjaValue
    {
        let dict = JinjaDict()
        for item in items {
            let key = try evaluate(item.key)
            dict.set(key, try hashed(key), try evaluate(item.value))
        }
        return .dict(dict)
    }

    func hashed(_ value: JinjaValue) throws -> JinjaKey {
        try readWhole(value)
        guard let key = JinjaKey(value) else {
            throw JinjaFailure.error("unhashable type: '\(value.typeName)'")
        }
        return key
    }

    private func signed(_ value: JinjaValue, isMinus: Bool) throws -> JinjaValue {
        if let number = value.integer {
            guard isMinus else { return .int(number) }
            let (result, overflow) = (0).subtractingReportingOverflow(number)
            guard !overflow else { throw JinjaArithmetic.overflow }
            return .int(result)
        }
        if case .float(let number) = value { return .float(isMinus ? -number : number) }
        if case .undefined(let what) = value { throw JinjaFailure.error(what) }
        throw JinjaFailure.error(
            "bad operand type for unary \(isMinus ? "-" : "+"): '\(value.typeName)'")
    }

    func compare(_ left: JinjaValue, _ symbol: String, _ right: JinjaValue) throws -> Bool {
        switch symbol {
        case "==": return try equal(left, right)
        case "!=": return try !equal(left, right)
        case "in": return try contains(right, left)
        case "not in": return try !contains(right, left)
        case "<": return try less(left, right)
        case ">": return try less(right, left, ">")
        case "<=":
            if isNaN(left) || isNaN(right) { return false }
            return try !less(right, left, "<=")
        default:
            if isNaN(left) || isNaN(right) { return false }
            return try !less(left, right, ">=")
        }
    }

    private func isNaN(_ value: JinjaValue) -> Bool {
        if case .float(let number) = value { number.isNaN } else { false }
    }

    /// Python's `in`.
    func contains(_ container: JinjaValue, _ element: JinjaValue) throws -> Bool {
        switch container {
        case .string(let text):
            guard case .string(let part) = element else {
                throw JinjaFailure.error(
                    "'in <string>' requires string as left operand, not \(element.typeName)")
            }
            try read(text.count + part.count)
            return text.find(part) != nil
        case .dict(let dict): return try dict[hashed(element)] != nil
        case .range(let range): return range.contains(element)
        case .int, .float, .bool, .none:
            throw JinjaFailure.error("argument of type '\(container.typeName)' is not iterable")
        default: return try container.elements().contains { try equal($0, element) }
        }
    }

    func call(_ function: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch function {
        case .callable(let callable):
            try visit()
            let result = try callable.body(self, arguments)
            if case .string(let text) = result { try JinjaLimits.check(characters: text.count) }
            return result
        case .undefined(let what): throw JinjaFailure.error(what)
        default: throw JinjaFailure.error("'\(function.typeName)' object is not callable")
        }
    }

    private func slice(_ value: JinjaValue, _ start: Int?, _ stop: Int?, _ step: Int?) throws
        -> JinjaValue
    {
        let step = step ?? 1
        guard step != 0 else { throw JinjaFailure.error("slice step cannot be zero") }
        func bounds(_ count: Int) -> (first: Int, last: Int) {
            func clamp(_ bound: Int, _ low: Int, _ high: Int) -> Int {
                let index = bound < 0 ? (bound < -count ? low : bound + count) : bound
                return min(max(index, low), high)
            }
            let isForward = step > 0
            let first =
                start.map { clamp($0, isForward ? 0 : -1, isForward ? count : count - 1) }
                ?? (isForward ? 0 : count - 1)
            let last =
                stop.map { clamp($0, isForward ? 0 : -1, isForward ? count : count - 1) }
                ?? (isForward ? count : -1)
            return (first, last)
        }
        func indices(_ count: Int) -> [Int] {
            let (first, last) = bounds(count)
            // A step beyond the length takes the first element only.
            let safe = min(max(step, -count - 1), count + 1)
            return Array(stride(from: first, to: last, by: safe))
        }
        switch value {
        case .string(let text):
            if step == 1 {
                let range = indices(text.count)
                guard let first = range.first, let last = range.last else {
                    return .string(JinjaText())
                }
                return .string(text.slice(first..<last + 1))
            }
            var result = JinjaText()
            for index in indices(text.count) { result.append(text.slice(index..<index + 1)) }
            return .string(result)
        case .list(let list):
            return .list(JinjaList(indices(list.items.count).map { list.items[$0] }))
        case .tuple(let items): return .tuple(indices(items.count).map { items[$0] })
        case .range(let range):
            let (first, last) = bounds(range.count)
            let (product, overflow) = range.step.multipliedReportingOverflow(by: step)
            guard !overflow else { throw JinjaArithmetic.overflow }
            return .range(try JinjaRange(range[first], range[last], product))
        case .undefined(let what): throw JinjaFailure.error(what)
        default: return .undefined("'\(value.typeName)' object cannot be sliced")
        }
    }
}
