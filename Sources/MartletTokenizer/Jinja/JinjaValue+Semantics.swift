// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension JinjaValue {
    static func text(_ text: String) -> JinjaValue { .string(JinjaText(text)) }

    /// A value from outside: all its strings are untrusted.
    init(_ json: JSONValue) {
        switch json {
        case .null: self = .none
        case .bool(let flag): self = .bool(flag)
        case .int(let number): self = .int(number)
        case .double(let number): self = .float(number)
        case .string(let text): self = .string(JinjaText(text, isUntrusted: true))
        case .array(let items):
            self = .list(JinjaList(items.map { JinjaValue($0) }, isLocal: false))
        case .object(let object):
            let dict = JinjaDict(isLocal: false)
            for member in object.members {
                let key = JinjaText(member.key, isUntrusted: true)
                dict.set(.string(key), .string(key), JinjaValue(member.value))
            }
            self = .dict(dict)
        }
    }

    /// Name of the Python type, for messages.
    var typeName: String {
        switch self {
        case .undefined: "Undefined"
        case .none: "NoneType"
        case .bool: "bool"
        case .int: "int"
        case .float: "float"
        case .string: "str"
        case .list: "list"
        case .tuple: "tuple"
        case .dict: "dict"
        case .namespace: "Namespace"
        case .range: "range"
        case .loop: "LoopContext"
        case .cycler: "Cycler"
        case .callable: "function"
        }
    }

    var isUndefined: Bool { if case .undefined = self { true } else { false } }
    var isNone: Bool { if case .none = self { true } else { false } }

    /// Python's truth of a value.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let flag): flag
        case .int(let number): number != 0
        case .float(let number): number != 0
        case .string(let text): !text.isEmpty
        case .list(let list): !list.items.isEmpty
        case .tuple(let items): !items.isEmpty
        case .dict(let dict): dict.count > 0
        case .range(let range): range.count > 0
        case .namespace, .loop, .cycler, .callable: true
        }
    }

    /// A number as Double; booleans count as numbers.
    var number: Double? {
        switch self {
        case .bool(let flag): flag ? 1 : 0
        case .int(let value): Double(value)
        case .float(let value): value
        default: nil
        }
    }

    /// An integer; booleans count.
    var integer: Int? {
        switch self {
        case .bool(let flag): flag ? 1 : 0
        case .int(let value): value
        default: nil
        }
    }

    /// Python's `==`.
    func equals(_ other: JinjaValue, depth: Int = 0) throws -> Bool {
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        func all(_ a: [JinjaValue], _ b: [JinjaValue]) throws -> Bool {
            guard a.count == b.count else { return false }
            for (left, right) in zip(a, b) where try !left.equals(right, depth: depth + 1) {
                return false
            }
            return true
        }
        switch (self, other) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let a), .string(let b)): return a == b
        case (.list(let a), .list(let b)): return try a === b || all(a.items, b.items)
        case (.tuple(let a), .tuple(let b)): return try all(a, b)
        case (.dict(let a), .dict(let b)):
            if a === b { return true }
            guard a.count == b.count else { return false }
            for (key, value) in zip(a.keys, a.values) {
                guard let hashed = JinjaKey(key), let right = b[hashed] else { return false }
                if try !value.equals(right, depth: depth + 1) { return false }
            }
            return true
        case (.namespace(let a), .namespace(let b)): return a === b
        case (.callable(let a), .callable(let b)): return a === b
        case (.range(let a), .range(let b)): return a.equals(b)
        case (.loop(let a), .loop(let b)): return a === b
        case (.cycler(let a), .cycler(let b)): return a === b
        default:
            if let a = integer, let b = other.integer { return a == b }
            if let a = number, let b = other.number { return a == b }
            return false
        }
    }

    /// Python's `<`.
    func isLess(than other: JinjaValue, _ symbol: String = "<", depth: Int = 0) throws -> Bool {
        guard depth < JinjaLimits.depth else { throw JinjaLimits.depthError }
        func less(_ a: [JinjaValue], _ b: [JinjaValue]) throws -> Bool {
            for (left, right) in zip(a, b) where try !left.equals(right) {
                return try left.isLess(than: right, symbol, depth: depth + 1)
            }
            return a.count < b.count
        }
        if let a = integer, let b = other.integer { return a < b }
        if let a = number, let b = other.number { return a < b }
        switch (self, other) {
        case (.string(let a), .string(let b)): return a < b
        case (.list(let a), .list(let b)): return try less(a.items, b.items)
        case (.tuple(let a), .tuple(let b)): return try less(a, b)
        case (.undefined(let what), _), (_, .undefined(let what)):
            throw JinjaFailure.error(what)
        default:
            throw JinjaFailure.error(
                "'\(symbol)' not supported between instances of '\(typeName)' and '\(other.typeName)'"
            )
        }
    }

    /// The elements that a loop would see.
    func elements() throws -> [JinjaValue] {
        switch self {
        case .undefined: return []
        case .list(let list): return list.items
        case .tuple(let items): return items
        case .dict(let dict): return dict.keys
        case .range(let range): return range.elements
        case .string(let text):
            try JinjaLimits.check(elements: text.count)
            return (0..<text.count).map { .string(text.slice($0..<$0 + 1)) }
        default: throw JinjaFailure.error("'\(typeName)' object is not iterable")
        }
    }
}

/// Bounds of what a template may use up.
enum JinjaLimits {
    /// Nesting of expressions, statements, macros and values.
    static let depth = 200
    /// Evaluated nodes.
    static let visits = 5_000_000
    /// Characters of the output and of any string.
    static let characters = 4 << 20
    /// Characters of all texts made on the way, with lists at what they take: 32 MiB.
    static let work = 8 << 20
    /// Characters and elements that comparing, searching and hashing read: about a second.
    static let reads = 1 << 28
    /// Elements of a range, as jinja2's sandbox has it.
    static let range = 100_000
    /// Elements of any other list.
    static let elements = 200_000

    static var depthError: MartletError {
        MartletError(.limitExceeded, "chat template: nesting exceeds \(depth), the limit")
    }

    static func check(characters count: Int) throws {
        guard count <= characters else {
            throw MartletError(
                .limitExceeded, "chat template: text exceeds \(characters) characters, the limit")
        }
    }

    static func check(elements count: Int) throws {
        guard count <= elements else {
            throw MartletError(
                .limitExceeded, "chat template: list exceeds \(elements) elements, the limit")
        }
    }
}

/// Failures of templates.
enum JinjaFailure {
    /// What the template did wrong while it was rendered.
    static func error(_ message: String) -> MartletError {
        MartletError(.invalidArgument, "chat template: \(message)")
    }

    /// What is wrong with the source of a template.
    static func syntax(_ message: String, line: Int) -> MartletError {
        MartletError(
            .corrupt, "chat template, line \(line): \(message)", context: ["line": "\(line)"])
    }

    /// Valid Jinja that is not supported.
    static func unsupported(_ what: String, line: Int) -> MartletError {
        MartletError(
            .unsupported, "chat template, line \(line): \(what) is not supported",
            context: ["line": "\(line)"])
    }
}
