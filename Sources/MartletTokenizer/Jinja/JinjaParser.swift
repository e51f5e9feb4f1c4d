// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reads tokens into statements; expressions are in an extension.
struct JinjaParser {
    var tokens: [JinjaToken]
    var index = 0
    var depth = 0
    /// Names of `JinjaMacro.specials` that the macro being read has read, and those it assigned before.
    var readSpecials: Set<String> = []
    var assignedSpecials: Set<String> = []

    /// Reads a template.
    ///
    /// - Throws: `corrupt` or `unsupported` naming the line.
    static func parse(_ source: String) throws -> [JinjaStatement] {
        var parser = JinjaParser(tokens: try JinjaLexer.tokens(of: source))
        return try parser.statements(until: [])
    }

    var current: JinjaToken.Kind { tokens[min(index, tokens.count - 1)].kind }
    var line: Int { tokens[min(index, tokens.count - 1)].line }
    var following: JinjaToken.Kind { tokens[min(index + 1, tokens.count - 1)].kind }

    func failure(_ message: String) -> any Error { JinjaFailure.syntax(message, line: line) }

    mutating func skip(_ symbol: String) -> Bool {
        guard current == .symbol(symbol) else { return false }
        index += 1
        return true
    }

    mutating func skipName(_ name: String) -> Bool {
        guard current == .name(name) else { return false }
        index += 1
        return true
    }

    mutating func expect(_ kind: JinjaToken.Kind) throws {
        guard current == kind else { throw failure("expected \(kind), got \(current)") }
        index += 1
    }

    mutating func expectName() throws -> String {
        guard case .name(let name) = current else {
            throw failure("expected a name, got \(current)")
        }
        index += 1
        return name
    }

    /// Counts nesting while a part is read.
    mutating func nested<Result>(_ body: (inout JinjaParser) throws -> Result) throws -> Result {
        depth += 1
        defer { depth -= 1 }
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        return try body(&self)
    }

    /// Reads statements up to a tag of one of the names, whose name token is then the current one.
    mutating func statements(until ends: Set<String>) throws -> [JinjaStatement] {
        var body: [JinjaStatement] = []
        while true {
            let line = line
            switch current {
            case .data(let text):
                index += 1
                body.append(JinjaStatement(kind: .text(JinjaText(text)), line: line))
            case .outputBegin:
                index += 1
                let expression = try tuple()
                try expect(.outputEnd)
                body.append(JinjaStatement(kind: .output(expression), line: line))
            case .tagBegin:
                index += 1
                if case .name(let name) = current, ends.contains(name) { return body }
                let kind = try nested { try $0.statement() }
                try expect(.tagEnd)
                body.append(JinjaStatement(kind: kind, line: line))
            case .end:
                if !ends.isEmpty {
                    throw failure("the template ends where one of \(ends.sorted()) is expected")
                }
                return body
            default:
                throw failure("unexpected \(current)")
            }
        }
    }

    /// The body of a tag that has been read up to its end, and the name of the tag that ends it.
    private mutating func body(_ ends: Set<String>) throws -> ([JinjaStatement], end: String) {
        _ = skip(":")
        try expect(.tagEnd)
        let body = try statements(until: ends)
        return (body, try expectName())
    }

    private mutating func statement() throws -> JinjaStatement.Kind {
        let name = try expectName()
        switch name {
        case "if": return try branch()
        case "for": return try loop()
        case "set": return try assignment()
        case "macro":
            let name = try expectName()
            return .macro(try macro(name, parameters: try self.parameters(), end: "endmacro"))
        case "call":
            let parameters = current == .symbol("(") ? try self.parameters() : []
            let call = try expression()
            guard case .call = call else { throw failure("expected a call") }
            return .callBlock(call, try macro("caller", parameters: parameters, end: "endcall"))
        case "filter":
            let filters = try filterChain(.blockText, startsWithName: true)
            return .filterBlock(filters, body: try body(["endfilter"]).0)
        case "with": return try with()
        case "generation": return .group(try body(["endgeneration"]).0)
        case "break": return .breakLoop
        case "continue": return .continueLoop
        case "elif", "else", "endif", "endfor", "endset", "endmacro", "endcall", "endfilter",
            "endgeneration", "endwith":
            throw failure("unexpected tag '\(name)'")
        default: throw JinjaFailure.unsupported("the tag '\(name)'", line: line)
        }
    }

    private mutating func branch() throws -> JinjaStatement.Kind {
        var branches: [(test: JinjaExpression, body: [JinjaStatement])] = []
        while true {
            let test = try tuple(withCondition: false)
            let (body, end) = try body(["elif", "else", "endif"])
            branches.append((test, body))
            if end == "endif" { return .branch(branches, otherwise: []) }
            if end == "else" { return .branch(branches, otherwise: try self.body(["endif"]).0) }
        }
    }

    private mutating func loop() throws -> JinjaStatement.Kind {
        let target = try self.target(withNamespace: false, end: "in")
        guard skipName("in") else { throw failure("expected 'in'") }
        let items = try tuple(withCondition: false, end: "recursive")
        var filter: JinjaExpression?
        if skipName("if") { filter = try expression() }
        if current == .name("recursive") {
            throw JinjaFailure.unsupported("a recursive loop", line: line)
        }
        let (body, end) = try body(["endfor", "else"])
        let otherwise = end == "else" ? try self.body(["endfor"]).0 : []
        return .loop(target, items, where: filter, body: body, otherwise: otherwise)
    }

    private mutating func assignment() throws -> JinjaStatement.Kind {
        let target = try self.target(withNamespace: true, end: nil)
        if skip("=") { return .set(target, try tuple()) }
        let filters = try filterChain(.blockText, startsWithName: false)
        return .setBlock(target, filters, body: try body(["endset"]).0)
    }

    private mutating func with() throws -> JinjaStatement.Kind {
        var values: [(target: JinjaTarget, value: JinjaExpression)] = []
        while current != .tagEnd {
            if !values.isEmpty { try expect(.symbol(",")) }
            let target = try self.target(withNamespace: false, end: nil)
            try expect(.symbol("="))
            values.append((target, try expression()))
        }
        return .with(values, body: try body(["endwith"]).0)
    }

    /// Notes that an expression reads a name.
    mutating func read(_ name: String) {
        guard JinjaMacro.specialNames.contains(name), !assignedSpecials.contains(name) else {
            return
        }
        readSpecials.insert(name)
    }

    /// The body of a macro; what it reads of the special names counts for the macro around it too.
    private mutating func macro(
        _ name: String, parameters: [(name: String, fallback: JinjaExpression?)], end: String
    ) throws -> JinjaMacro {
        let outer = (read: readSpecials, assigned: assignedSpecials)
        readSpecials = []
        assignedSpecials = []
        let body = try body([end]).0
        let read = readSpecials
        let given = Set(parameters.map(\.name)).intersection(JinjaMacro.specialNames)
        assignedSpecials.formUnion(outer.assigned.union(given))
        readSpecials = outer.read.union(read.subtracting(outer.assigned.union(given)))
        return JinjaMacro(name: name, parameters: parameters, body: body, specials: read)
    }

    private mutating func target(withNamespace: Bool, end: String?) throws -> JinjaTarget {
        var targets: [JinjaTarget] = []
        var isTuple = false
        while true {
            if let end, current == .name(end) { break }
            if current == .symbol("=") || current == .tagEnd { break }
            if skip("(") {
                targets.append(try nested { try $0.target(withNamespace: withNamespace, end: nil) })
                try expect(.symbol(")"))
            } else {
                let name = try expectName()
                if withNamespace, skip(".") {
                    targets.append(.attribute(namespace: name, try expectName()))
                } else {
                    if JinjaMacro.specialNames.contains(name) { assignedSpecials.insert(name) }
                    targets.append(.name(name))
                }
            }
            guard skip(",") else { break }
            isTuple = true
        }
        guard let first = targets.first else { throw failure("expected a name to assign to") }
        return isTuple ? .tuple(targets) : first
    }

    private mutating func parameters() throws -> [(name: String, fallback: JinjaExpression?)] {
        try expect(.symbol("("))
        var result: [(name: String, fallback: JinjaExpression?)] = []
        while !skip(")") {
            if !result.isEmpty {
                try expect(.symbol(","))
                if skip(")") { break }
            }
            let name = try expectName()
            let fallback = skip("=") ? try expression() : nil
            if fallback == nil, result.last?.fallback != nil {
                throw failure("parameter '\(name)' without a default follows one with a default")
            }
            result.append((name, fallback))
        }
        return result
    }
}
