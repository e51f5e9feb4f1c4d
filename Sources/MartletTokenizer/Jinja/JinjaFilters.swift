// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Filters by name.
enum JinjaFilters {
    /// Filters that templates may use; others are refused when a template is read.
    static let names: Set<String> = [
        "abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "first",
        "float", "format", "groupby", "indent", "int", "items", "join", "last", "length", "list",
        "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round",
        "safe", "select", "selectattr", "slice", "sort", "string", "sum", "title", "tojson",
        "trim", "truncate", "unique", "upper",
    ]
}

extension JinjaRenderer {
    func filter(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments) throws
        -> JinjaValue
    {
        try readBreadth(value, arguments)
        switch name {
        case "upper": return .string(try value.printed().uppercased)
        case "lower": return .string(try value.printed().lowercased)
        case "capitalize": return .string(try value.printed().capitalized)
        case "title", "trim", "replace", "indent", "format", "center", "truncate":
            return .string(try textFilter(name, value, arguments))
        case "string", "safe": return .string(try value.printed())
        case "length", "count": return .int(try length(value))
        case "default", "d":
            let isMissing =
                value.isUndefined || arguments.value(1, "boolean")?.isTrue ?? false && !value.isTrue
            return isMissing ? arguments.value(0, "default_value") ?? .string(JinjaText()) : value
        case "first", "last":
            let items = try value.elements()
            return (name == "first" ? items.first : items.last)
                ?? .undefined("No \(name) item, sequence was empty.")
        case "list": return .list(JinjaList(try value.elements()))
        case "reverse":
            if case .string(let text) = value { return .string(text.reversed) }
            return .list(JinjaList(try value.elements().reversed()))
        case "items":
            if value.isUndefined { return .list(JinjaList([])) }
            guard case .dict(let dict) = value else {
                throw JinjaFailure.error("Can only get item pairs from a mapping.")
            }
            return .list(JinjaList(zip(dict.keys, dict.values).map { .tuple([$0, $1]) }))
        case "join": return try join(value, arguments)
        case "tojson": return .string(try json(value, arguments))
        case "int", "float", "abs", "round": return try numberFilter(name, value, arguments)
        case "batch", "slice", "groupby": return try groupFilter(name, value, arguments)
        default: return try sequenceFilter(name, value, arguments)
        }
    }

    private func length(_ value: JinjaValue) throws -> Int {
        switch value {
        case .undefined: return 0
        case .string(let text): return text.count
        case .list(let list): return list.items.count
        case .tuple(let items): return items.count
        case .dict(let dict): return dict.count
        case .range(let range): return range.count
        case .loop(let loop): return loop.items.count
        default: throw JinjaFailure.error("object of type '\(value.typeName)' has no len()")
        }
    }

    private func textFilter(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments
    ) throws -> JinjaText {
        let text = try value.printed()
        switch name {
        case "trim":
            if case .string(let set)? = arguments.value(0, "chars") { return text.stripped(set) }
            return text.stripped()
        case "replace":
            guard let old = arguments.value(0, "old"), let new = arguments.value(1, "new") else {
                throw JinjaFailure.error("replace expects two arguments")
            }
            let count = arguments.value(2, "count")?.integer ?? -1
            return try replaced(text, old.printed(), new.printed(), count < 0 ? .max : count)
        case "format":
            guard arguments.named.isEmpty else {
                throw JinjaFailure.error("format with named arguments is not supported")
            }
            return try PythonFormat.percent(text, arguments.positional)
        case "title": return titleWords(text)
        case "center":
            let width = arguments.value(0, "width")?.integer ?? 80
            return try text.padded(to: width, .center, with: JinjaText(" "))
        case "truncate":
            guard case .string = value else {
                throw JinjaFailure.error("object of type '\(value.typeName)' cannot be truncated")
            }
            return try truncated(text, arguments)
        default: return try indented(text, arguments)
        }
    }

    private func truncated(_ text: JinjaText, _ arguments: JinjaArguments) throws -> JinjaText {
        let length = arguments.value(0, "length")?.integer ?? 255
        let killsWords = arguments.value(1, "killwords")?.isTrue ?? false
        let end = try arguments.value(2, "end")?.printed() ?? JinjaText("...")
        let leeway = arguments.value(3, "leeway")?.integer ?? 5
        guard length >= end.count else {
            throw JinjaFailure.error("expected length >= \(end.count), got \(length)")
        }
        guard leeway >= 0 else { throw JinjaFailure.error("expected leeway >= 0, got \(leeway)") }
        guard text.count - length > leeway else { return text }
        var result = text.slice(0..<length - end.count)
        if !killsWords { result = result.splitFromRight(JinjaText(" "), limit: 1)[0] }
        result.append(end)
        return result
    }

    /// jinja2's own title case: words start after blanks, hyphens and opening brackets.
    private func titleWords(_ text: JinjaText) -> JinjaText {
        var result = JinjaText()
        var startsWord = true
        for index in 0..<text.count {
            let scalar = text.scalars[index]
            let one = text.slice(index..<index + 1)
            if scalar.isPythonSpace || "-({[<".unicodeScalars.contains(scalar) {
                result.append(one)
                startsWord = true
            } else {
                result.append(startsWord ? one.uppercased : one.lowercased)
                startsWord = false
            }
        }
        return result
    }

    private func indented(_ text: JinjaText, _ arguments: JinjaArguments) throws -> JinjaText {
        var indent = JinjaText(String(repeating: " ", count: 4))
        switch arguments.value(0, "width") {
        case .string(let width)?: indent = width
        case let width?:
            let count = width.integer ?? 4
            try JinjaLimits.check(characters: count)
            indent = JinjaText(String(repeating: " ", count: max(count, 0)))
        case nil: break
        }
        let indentsFirst = arguments.value(1, "first")?.isTrue ?? false
        let indentsBlank = arguments.value(2, "blank")?.isTrue ?? false
        var source = text
        source.append("\n")
        var result = JinjaText()
        for (index, line) in source.lines().enumerated() {
            if index > 0 { result.append("\n") }
            if index > 0 ? indentsBlank || !line.isEmpty : indentsFirst { result.append(indent) }
            result.append(line)
            try JinjaLimits.check(characters: result.count)
        }
        return result
    }

    private func join(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        var items = try value.elements()
        if let attribute = arguments.value(1, "attribute"), case .string = attribute {
            items = try items.map { try path(attribute, of: $0) }
        }
        let separator = try arguments.value(0, "d")?.printed() ?? JinjaText()
        return .string(try joined(separator, items.map { try $0.printed() }))
    }

    private func json(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaText {
        var style = JinjaJSONStyle()
        style.ensuresASCII = arguments.value(0, "ensure_ascii")?.isTrue ?? false
        switch arguments.value(1, "indent") {
        case .string(let text)?: style.indent = text
        case let width?:
            if let count = width.integer {
                try JinjaLimits.check(elements: count)
                style.indent = JinjaText(String(repeating: " ", count: max(count, 0)))
            }
        case nil: break
        }
        if style.indent != nil { style.itemSeparator = JinjaText(",") }
        if let separators = arguments.value(2, "separators"),
            case let parts = try separators.elements(),
            parts.count == 2
        {
            style.itemSeparator = try parts[0].printed()
            style.keySeparator = try parts[1].printed()
        }
        style.sortsKeys = arguments.value(3, "sort_keys")?.isTrue ?? false
        var output = JinjaText()
        try value.writeJSON(style, into: &output)
        return output
    }

    /// Follows a dotted path of items, as `map(attribute=...)` does.
    func path(_ attribute: JinjaValue, of value: JinjaValue) throws -> JinjaValue {
        guard case .string(let text) = attribute else { return try item(value, attribute) }
        var current = value
        for part in text.split(JinjaText(".")) {
            let index =
                part.scalars.allSatisfy { ("0"..."9").contains($0) } ? Int(part.string) : nil
            current = try item(current, index.map { .int($0) } ?? .string(part))
        }
        return current
    }
}
