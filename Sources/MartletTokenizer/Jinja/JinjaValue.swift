// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A value of a template.
enum JinjaValue {
    /// Nothing; the text says what is missing.
    case undefined(String)
    case none
    case bool(Bool)
    case int(Int)
    case float(Double)
    case string(JinjaText)
    case list(JinjaList)
    case tuple([JinjaValue])
    case dict(JinjaDict)
    case namespace(JinjaDict)
    case range(JinjaRange)
    case loop(JinjaLoop)
    case cycler(JinjaCycler)
    case callable(JinjaCallable)
}

/// A list, shared by reference as in Python.
final class JinjaList {
    var items: [JinjaValue]
    /// Made by the template, which may change it; what came from outside stays as it is.
    let isLocal: Bool
    /// Whether it is the second part of a pair that `groupby` made, whose parts have names.
    let isGroup: Bool

    init(_ items: [JinjaValue], isLocal: Bool = true, isGroup: Bool = false) {
        self.items = items
        self.isLocal = isLocal
        self.isGroup = isGroup
    }
}

/// A dict in insertion order, shared by reference.
final class JinjaDict {
    private(set) var keys: [JinjaValue] = []
    private(set) var values: [JinjaValue] = []
    private var indexOf: [JinjaKey: Int] = [:]
    let isLocal: Bool

    init(isLocal: Bool = true) { self.isLocal = isLocal }

    var count: Int { keys.count }

    subscript(key: JinjaKey) -> JinjaValue? { indexOf[key].map { values[$0] } }
    subscript(name: String) -> JinjaValue? { self[.string(JinjaText(name))] }

    func set(_ key: JinjaValue, _ hashed: JinjaKey, _ value: JinjaValue) {
        if let index = indexOf[hashed] {
            values[index] = value
        } else {
            indexOf[hashed] = keys.count
            keys.append(key)
            values.append(value)
        }
    }

    func set(_ name: String, _ value: JinjaValue) {
        let text = JinjaText(name)
        set(.string(text), .string(text), value)
    }

    func remove(_ key: JinjaKey) -> JinjaValue? {
        guard let index = indexOf[key] else { return nil }
        let value = values[index]
        let rest = zip(keys, values).enumerated().filter { $0.offset != index }.map(\.element)
        keys = rest.map(\.0)
        values = rest.map(\.1)
        indexOf[key] = nil
        for (other, position) in indexOf where position > index { indexOf[other] = position - 1 }
        return value
    }
}

/// A value that can be a key: 1, 1.0 and true are the same one, as in Python.
enum JinjaKey: Hashable {
    case none
    case int(Int)
    case float(UInt64)
    case string(JinjaText)
    case tuple([JinjaKey])

    /// Nil for values that cannot be keys (lists, dicts).
    init?(_ value: JinjaValue) {
        switch value {
        case .none: self = .none
        case .bool(let flag): self = .int(flag ? 1 : 0)
        case .int(let number): self = .int(number)
        case .float(let number):
            self = Int(exactly: number).map { .int($0) } ?? .float(number.bitPattern)
        case .string(let text): self = .string(text)
        case .tuple(let items):
            var keys: [JinjaKey] = []
            for item in items {
                guard let key = JinjaKey(item) else { return nil }
                keys.append(key)
            }
            self = .tuple(keys)
        default: return nil
        }
    }
}

/// State of a `for`, read as `loop`.
final class JinjaLoop {
    let items: [JinjaValue]
    var index = 0
    var lastChecked: [JinjaValue]?

    init(_ items: [JinjaValue]) { self.items = items }
}

/// Arguments of a call.
struct JinjaArguments {
    var positional: [JinjaValue] = []
    var named: [(name: String, value: JinjaValue)] = []

    /// The argument at a place or of a name.
    func value(_ index: Int, _ name: String) -> JinjaValue? {
        index < positional.count ? positional[index] : named.first { $0.name == name }?.value
    }
}

/// A function: built in, a method, or a macro.
final class JinjaCallable {
    let name: String
    let body: (JinjaRenderer, JinjaArguments) throws -> JinjaValue

    init(_ name: String, _ body: @escaping (JinjaRenderer, JinjaArguments) throws -> JinjaValue) {
        self.name = name
        self.body = body
    }
}
