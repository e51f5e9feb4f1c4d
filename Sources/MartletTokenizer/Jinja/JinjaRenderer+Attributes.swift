// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Attributes, items and methods of values.
extension JinjaRenderer {
    /// `value.name`: a method or attribute, else the item of that name.
    func attribute(_ value: JinjaValue, _ name: String) throws -> JinjaValue {
        switch value {
        case .undefined(let what): throw JinjaFailure.error(what)
        case .namespace(let dict):
            return dict[name] ?? .undefined("'Namespace' object has no attribute '\(name)'")
        case .loop(let loop): return try loopAttribute(loop, name)
        case .callable(let function) where name == "name": return .text(function.name)
        case .cycler(let cycler):
            switch name {
            case "current": return cycler.current
            case "next": return method(name) { _ in cycler.next() }
            case "reset":
                return method(name) { _ in
                    cycler.reset()
                    return .none
                }
            default: break
            }
        case .range(let range):
            switch name {
            case "start": return .int(range.start)
            case "stop": return .int(range.stop)
            case "step": return .int(range.step)
            case "index", "count": return listMethod(JinjaList(range.elements), name) ?? .none
            default: break
            }
        case .tuple(let items):
            if name == "index" || name == "count" {
                return listMethod(JinjaList(items), name) ?? .none
            }
            if items.count == 2, case .list(let list) = items[1], list.isGroup {
                if name == "grouper" { return items[0] }
                if name == "list" { return items[1] }
            }
        case .dict(let dict):
            return dictMethod(dict, name) ?? dict[name]
                ?? .undefined("'dict object' has no attribute '\(name)'")
        case .list(let list):
            if let method = listMethod(list, name) { return method }
        case .string(let text):
            if let method = stringMethod(text, name) { return method }
        default: break
        }
        return .undefined("'\(value.typeName) object' has no attribute '\(name)'")
    }

    /// `value[key]`: an item, else the method of that name.
    func item(_ value: JinjaValue, _ key: JinjaValue) throws -> JinjaValue {
        func element(_ count: Int, _ at: (Int) -> JinjaValue) -> JinjaValue? {
            guard let index = key.integer else { return nil }
            let place = index < 0 ? index &+ count : index
            return place >= 0 && place < count ? at(place) : nil
        }
        var found: JinjaValue?
        switch value {
        case .undefined(let what): throw JinjaFailure.error(what)
        case .dict(let dict):
            try readWhole(key)
            found = JinjaKey(key).flatMap { dict[$0] }
        case .list(let list): found = element(list.items.count) { list.items[$0] }
        case .tuple(let items): found = element(items.count) { items[$0] }
        case .range(let range): found = element(range.count) { .int(range[$0]) }
        case .string(let text): found = element(text.count) { .string(text.slice($0..<$0 + 1)) }
        default: break
        }
        if let found { return found }
        if case .string(let name) = key { return try attribute(value, name.string) }
        return .undefined("'\(value.typeName) object' has no element \(try key.printed().string)")
    }

    private func loopAttribute(_ loop: JinjaLoop, _ name: String) throws -> JinjaValue {
        let count = loop.items.count
        switch name {
        case "index": return .int(loop.index + 1)
        case "index0": return .int(loop.index)
        case "revindex": return .int(count - loop.index)
        case "revindex0": return .int(count - loop.index - 1)
        case "first": return .bool(loop.index == 0)
        case "last": return .bool(loop.index == count - 1)
        case "length": return .int(count)
        // jinja2 counts recursive loops only, and those are refused.
        case "depth": return .int(1)
        case "depth0": return .int(0)
        case "previtem":
            return loop.index > 0
                ? loop.items[loop.index - 1] : .undefined("there is no previous item")
        case "nextitem":
            return loop.index + 1 < count
                ? loop.items[loop.index + 1] : .undefined("there is no next item")
        case "cycle":
            return .callable(
                JinjaCallable(name) { _, arguments in
                    let items = arguments.positional
                    guard !items.isEmpty else {
                        throw JinjaFailure.error("no items for cycling given")
                    }
                    return items[loop.index % items.count]
                })
        case "changed":
            return .callable(
                JinjaCallable(name) { renderer, arguments in
                    if let last = loop.lastChecked,
                        try renderer.equal(.tuple(last), .tuple(arguments.positional))
                    {
                        return .bool(false)
                    }
                    loop.lastChecked = arguments.positional
                    return .bool(true)
                })
        default: return .undefined("'LoopContext object' has no attribute '\(name)'")
        }
    }

    private func method(
        _ name: String, _ body: @escaping (JinjaArguments) throws -> JinjaValue
    ) -> JinjaValue {
        .callable(JinjaCallable(name) { _, arguments in try body(arguments) })
    }

    private func frozen(_ name: String) -> MartletError {
        JinjaFailure.error("'\(name)' would change a value that came from outside")
    }

    private func listMethod(_ list: JinjaList, _ name: String) -> JinjaValue? {
        switch name {
        case "append", "extend", "insert", "pop":
            return method(name) { arguments in
                guard list.isLocal else { throw self.frozen(name) }
                try JinjaLimits.check(elements: list.items.count + 1)
                let first = arguments.value(0, "object")
                switch (name, first) {
                case ("append", let value?): list.items.append(value)
                case ("extend", let value?):
                    let more = try value.elements()
                    try JinjaLimits.check(elements: list.items.count + more.count)
                    list.items += more
                case ("insert", let value?):
                    guard var place = value.integer, arguments.positional.count == 2 else {
                        throw JinjaFailure.error("insert expects an index and a value")
                    }
                    if place < 0 { place = max(place &+ list.items.count, 0) }
                    list.items.insert(arguments.positional[1], at: min(place, list.items.count))
                case ("pop", _):
                    var place = first?.integer ?? list.items.count - 1
                    if place < 0 { place = place &+ list.items.count }
                    guard list.items.indices.contains(place) else {
                        throw JinjaFailure.error("pop index out of range")
                    }
                    return list.items.remove(at: place)
                default: throw JinjaFailure.error("\(name) expects an argument")
                }
                return .none
            }
        case "index", "count":
            return method(name) { arguments in
                let value = arguments.value(0, "value") ?? .none
                if name == "count" {
                    return .int(try list.items.filter { try self.equal($0, value) }.count)
                }
                guard let index = try list.items.firstIndex(where: { try self.equal($0, value) })
                else {
                    throw JinjaFailure.error("value is not in list")
                }
                return .int(index)
            }
        case "copy": return method(name) { _ in .list(JinjaList(list.items)) }
        default: return nil
        }
    }

    private func dictMethod(_ dict: JinjaDict, _ name: String) -> JinjaValue? {
        switch name {
        case "items":
            return method(name) { _ in
                .list(JinjaList(zip(dict.keys, dict.values).map { .tuple([$0, $1]) }))
            }
        case "keys": return method(name) { _ in .list(JinjaList(dict.keys)) }
        case "values": return method(name) { _ in .list(JinjaList(dict.values)) }
        case "get":
            return method(name) { arguments in
                guard let key = arguments.value(0, "key") else {
                    throw JinjaFailure.error("get expects a key")
                }
                return try dict[self.hashed(key)] ?? arguments.value(1, "default") ?? .none
            }
        case "copy":
            return method(name) { _ in
                let copy = JinjaDict()
                for (key, value) in zip(dict.keys, dict.values) {
                    copy.set(key, try self.hashed(key), value)
                }
                return .dict(copy)
            }
        case "update", "pop", "setdefault":
            return method(name) { arguments in
                guard dict.isLocal else { throw self.frozen(name) }
                try JinjaLimits.check(elements: dict.count + 1)
                if name == "update" {
                    if case .dict(let other)? = arguments.positional.first {
                        for (key, value) in zip(other.keys, other.values) {
                            dict.set(key, try self.hashed(key), value)
                        }
                    }
                    for (key, value) in arguments.named { dict.set(key, value) }
                    return .none
                }
                guard let key = arguments.value(0, "key") else {
                    throw JinjaFailure.error("\(name) expects a key")
                }
                let hashed = try self.hashed(key)
                if name == "setdefault" {
                    if let value = dict[hashed] { return value }
                    let value = arguments.value(1, "default") ?? .none
                    dict.set(key, hashed, value)
                    return value
                }
                guard let value = dict.remove(hashed) ?? arguments.value(1, "default") else {
                    throw JinjaFailure.error("pop: no such key")
                }
                return value
            }
        default: return nil
        }
    }
}
