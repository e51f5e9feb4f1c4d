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
            throw JinjaFailure.error("evaluation exceeds \(JinjaLimits.visits) nodes, the limit")
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
        case .breakLoop: return .breakLoop
        case .continueLoop: return .continueLoop
        }
        return .next
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
        var elements = try evaluate(items).elements()
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
        guard arguments.positional.count <= macro.parameters.count else {
            throw JinjaFailure.error(
                "macro '\(macro.name)' takes not more than \(macro.parameters.count) argument(s)")
        }
        var named = arguments.named
        let text = try deeper {
            try captured(in: parent) {
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
                if let at = named.firstIndex(where: { $0.name == "caller" }) {
                    scope.variables["caller"] = named.remove(at: at).value
                }
                if let extra = named.first {
                    throw JinjaFailure.error(
                        "macro '\(macro.name)' takes no keyword argument '\(extra.name)'")
                }
                _ = try run(macro.body)
            }
        }
        return .string(text)
    }
}
