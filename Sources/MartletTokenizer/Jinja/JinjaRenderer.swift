// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Variables of a block, and of the blocks around it.
final class JinjaScope {
    var variables: [String: JinjaValue] = [:]
    let parent: JinjaScope?

    init(parent: JinjaScope?) { self.parent = parent }

    func find(_ name: String) -> JinjaValue? {
        var scope: JinjaScope? = self
        while let current = scope {
            if let value = current.variables[name] { return value }
            scope = current.parent
        }
        return nil
    }
}

/// Evaluates a template once.
final class JinjaRenderer {
    /// How a statement ended.
    enum Flow { case next, breakLoop, continueLoop }

    var output = JinjaText()
    var scope: JinjaScope
    private var visitCount = 0
    private var workLeft = JinjaLimits.work
    /// Characters and elements that operations may still read.
    var readsLeft = JinjaLimits.reads
    private var depth = 0
    private var blockText = JinjaText()
    /// Scopes that hold macros, which hold their scope: taken apart at the end.
    private var macroScopes: [JinjaScope] = []

    init(variables: [String: JinjaValue]) {
        let globals = JinjaScope(parent: nil)
        globals.variables = JinjaGlobals.functions
        let context = JinjaScope(parent: globals)
        context.variables = variables
        scope = JinjaScope(parent: context)
    }

    /// Renders a template's statements.
    func render(_ statements: [JinjaStatement]) throws -> JinjaText {
        defer { for scope in macroScopes { scope.variables.removeAll() } }
        _ = try run(statements)
        return output
    }

    /// Counts an evaluated node.
    @inline(__always)
    func visit() throws {
        visitCount += 1
        if visitCount > JinjaLimits.visits {
            throw MartletError(
                .limitExceeded,
                "chat template: evaluation exceeds \(JinjaLimits.visits) nodes, the limit")
        }
    }

    /// Counts what an operation made: its characters, or its elements at what they take.
    func charge(_ value: JinjaValue) throws {
        switch value {
        case .string(let text): try charge(text.count + 16)
        case .list(let list): try charge(list.items.count * 12 + 16)
        case .tuple(let items): try charge(items.count * 12 + 16)
        case .dict(let dict): try charge(dict.count * 48 + 32)
        default: break
        }
    }

    /// Counts characters made.
    func charge(_ count: Int) throws {
        workLeft -= count
        guard workLeft >= 0 else {
            throw MartletError(
                .limitExceeded,
                "chat template: the texts and lists made on the way exceed \(JinjaLimits.work) "
                    + "characters, the limit",
                mend: "Shorten the messages, or leave the template out: martlet run MODEL --raw")
        }
    }

    /// Counts nesting.
    func deeper<Result>(_ body: () throws -> Result) throws -> Result {
        depth += 1
        defer { depth -= 1 }
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        return try body()
    }

    func emit(_ text: JinjaText) throws {
        try JinjaLimits.check(characters: output.count + text.count)
        try charge(text.count)
        output.append(text)
    }

    /// Runs with a scope and an output of its own, and returns what was put out.
    func captured(in parent: JinjaScope, _ body: () throws -> Void) throws -> JinjaText {
        let outerScope = scope
        let outerOutput = output
        scope = JinjaScope(parent: parent)
        output = JinjaText()
        defer {
            scope = outerScope
            output = outerOutput
        }
        try body()
        return output
    }

    func run(_ statements: [JinjaStatement]) throws -> Flow {
        for statement in statements {
            let flow: Flow
            do {
                flow = try deeper { try run(statement.kind) }
            } catch let error as MartletError {
                throw error.adding("line", "\(statement.line)")
            }
            if flow != .next { return flow }
        }
        return .next
    }

    private func run(_ statement: JinjaStatement.Kind) throws -> Flow {
        try visit()
        switch statement {
        case .text(let text): try emit(text)
        case .output(let expression): try emit(try evaluate(expression).printed())
        case .branch(let branches, let otherwise):
            for branch in branches where try evaluate(branch.test).isTrue {
                return try run(branch.body)
            }
            return try run(otherwise)
        case .loop(let target, let items, let filter, let body, let otherwise):
            try loop(target, items, filter, body, otherwise)
        case .set(let target, let expression): try assign(try evaluate(expression), to: target)
        case .setBlock(let target, let filters, let body):
            try assign(try filtered(filters, body), to: target)
        case .filterBlock(let filters, let body): try emit(try filtered(filters, body).printed())
        case .macro(let macro): scope.variables[macro.name] = .callable(function(macro, in: scope))
        case .callBlock(let call, let macro):
            guard case .call(let callee, let arguments) = call else { break }
            var values = try evaluate(arguments)
            values.named.append(("caller", .callable(function(macro, in: scope))))
            try emit(try self.call(evaluate(callee), values).printed())
        case .group(let body): return try run(body)
        case .with(let values, let body): return try with(values, body)
        case .breakLoop: return .breakLoop
        case .continueLoop: return .continueLoop
        }
        return .next
    }

    /// Runs a body with variables of its own, whose values are those of the block around it.
    private func with(
        _ values: [(target: JinjaTarget, value: JinjaExpression)], _ body: [JinjaStatement]
    ) throws -> Flow {
        let outer = scope
        defer { scope = outer }
        let inner = JinjaScope(parent: outer)
        for (target, expression) in values {
            scope = outer
            let value = try evaluate(expression)
            scope = inner
            try assign(value, to: target)
        }
        scope = inner
        return try run(body)
    }

    private func filtered(_ filters: JinjaExpression, _ body: [JinjaStatement]) throws -> JinjaValue
    {
        let text = try captured(in: scope) { _ = try run(body) }
        let outer = blockText
        blockText = text
        defer { blockText = outer }
        return try evaluate(filters)
    }

    /// The value of the operand of filters on a block.
    var currentBlockText: JinjaText { blockText }

    private func loop(
        _ target: JinjaTarget, _ items: JinjaExpression, _ filter: JinjaExpression?,
        _ body: [JinjaStatement],
        _ otherwise: [JinjaStatement]
    ) throws {
        let outer = scope
        defer { scope = outer }
        let sequence = try evaluate(items)
        try readBreadth(sequence)
        var elements = try sequence.elements()
        if let filter {
            elements = try elements.filter { element in
                scope = JinjaScope(parent: outer)
                try assign(element, to: target)
                return try evaluate(filter).isTrue
            }
            scope = outer
        }
        if elements.isEmpty {
            scope = JinjaScope(parent: outer)
            _ = try run(otherwise)
            return
        }
        let state = JinjaLoop(elements)
        for (index, element) in elements.enumerated() {
            try visit()
            state.index = index
            scope = JinjaScope(parent: outer)
            scope.variables["loop"] = .loop(state)
            try assign(element, to: target)
            if try run(body) == .breakLoop { break }
        }
    }

    private func assign(_ value: JinjaValue, to target: JinjaTarget) throws {
        switch target {
        case .name(let name): scope.variables[name] = value
        case .attribute(let namespace, let name):
            guard case .namespace(let dict)? = scope.find(namespace) else {
                throw JinjaFailure.error(
                    "cannot assign attribute on non-namespace object '\(namespace)'")
            }
            dict.set(name, value)
        case .tuple(let targets):
            try readBreadth(value)
            let values = try value.elements()
            guard values.count == targets.count else {
                throw JinjaFailure.error(
                    "cannot unpack \(values.count) values into \(targets.count) names")
            }
            for (part, value) in zip(targets, values) { try assign(value, to: part) }
        }
    }

    /// A macro as a function that sees the scope it was made in.
    private func function(_ macro: JinjaMacro, in scope: JinjaScope) -> JinjaCallable {
        macroScopes.append(scope)
        return JinjaCallable(macro.name) { renderer, arguments in
            try renderer.expand(macro, in: scope, arguments)
        }
    }

    private func expand(_ macro: JinjaMacro, in parent: JinjaScope, _ arguments: JinjaArguments)
        throws -> JinjaValue
    {
        let text = try deeper {
            try captured(in: parent) {
                let named = try bind(macro, arguments)
                try bindSpecials(macro, arguments, named)
                _ = try run(macro.body)
            }
        }
        return .string(text)
    }

    /// Sets the parameters of a macro.
    ///
    /// - Returns: Named arguments that are left.
    private func bind(_ macro: JinjaMacro, _ arguments: JinjaArguments) throws
        -> [(name: String, value: JinjaValue)]
    {
        var named = arguments.named
        for (index, parameter) in macro.parameters.enumerated() {
            var value: JinjaValue?
            if index < arguments.positional.count {
                value = arguments.positional[index]
            } else if let at = named.firstIndex(where: { $0.name == parameter.name }) {
                value = named.remove(at: at).value
            }
            if value == nil, let fallback = parameter.fallback {
                value = try evaluate(fallback)
            }
            scope.variables[parameter.name] =
                value ?? .undefined("parameter '\(parameter.name)' was not provided")
        }
        return named
    }

    /// Gives a macro what it reads of `caller`, `varargs` and `kwargs`; more arguments than it takes are refused.
    private func bindSpecials(
        _ macro: JinjaMacro, _ arguments: JinjaArguments,
        _ named: [(name: String, value: JinjaValue)]
    ) throws {
        func takes(_ name: String) -> Bool {
            macro.specials.contains(name) && !macro.parameters.contains { $0.name == name }
        }
        var named = named
        if takes("caller") {
            let at = named.firstIndex { $0.name == "caller" }
            scope.variables["caller"] =
                at.map { named.remove(at: $0).value } ?? .undefined("No caller defined")
        }
        if takes("kwargs") {
            let dict = JinjaDict()
            for (name, value) in named { dict.set(name, value) }
            scope.variables["kwargs"] = .dict(dict)
        } else if let extra = named.first {
            throw JinjaFailure.error(
                "macro '\(macro.name)' takes no keyword argument '\(extra.name)'")
        }
        let extra = arguments.positional.dropFirst(macro.parameters.count)
        if takes("varargs") {
            scope.variables["varargs"] = .tuple(Array(extra))
        } else if !extra.isEmpty {
            throw JinjaFailure.error(
                "macro '\(macro.name)' takes not more than \(macro.parameters.count) argument(s)")
        }
    }
}
