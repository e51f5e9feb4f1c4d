// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Methods of strings.
extension JinjaRenderer {
    private static let stringMethods: Set<String> = [
        "upper", "lower", "title", "capitalize", "strip", "lstrip", "rstrip", "split", "rsplit",
        "splitlines",
        "startswith", "endswith", "replace", "find", "rfind", "index", "count", "join", "format",
        "isdigit",
        "isalpha", "isalnum", "isspace", "isupper", "islower", "removeprefix", "removesuffix",
        "swapcase", "partition", "rpartition", "zfill", "ljust", "rjust", "center", "rindex",
        "isascii",
    ]
    /// Methods of Python's that are refused where they are called.
    private static let unsupportedMethods: Set<String> = [
        "casefold", "encode", "expandtabs", "format_map", "isdecimal", "isidentifier", "isnumeric",
        "isprintable", "istitle", "maketrans", "translate",
    ]

    func stringMethod(_ text: JinjaText, _ name: String) -> JinjaValue? {
        if JinjaRenderer.unsupportedMethods.contains(name) {
            return .callable(
                JinjaCallable(name) { _, _ in
                    throw JinjaFailure.error("the method '\(name)' of strings is not supported")
                })
        }
        guard JinjaRenderer.stringMethods.contains(name) else { return nil }
        return .callable(
            JinjaCallable(name) { renderer, arguments in
                try renderer.callStringMethod(text, name, arguments)
            })
    }

    private func callStringMethod(
        _ text: JinjaText, _ name: String, _ arguments: JinjaArguments
    ) throws -> JinjaValue {
        func string(_ index: Int, _ label: String) throws -> JinjaText {
            guard case .string(let value)? = arguments.value(index, label) else {
                throw JinjaFailure.error("\(name) expects a string as argument \(index + 1)")
            }
            return value
        }
        func optionalString(_ index: Int, _ label: String) throws -> JinjaText? {
            switch arguments.value(index, label) {
            case nil, JinjaValue.none?: return nil
            default: return try string(index, label)
            }
        }
        func limit(_ index: Int, _ label: String) -> Int {
            let value = arguments.value(index, label)?.integer ?? -1
            return value < 0 ? .max : value
        }
        try read(text.count)
        for argument in arguments.positional + arguments.named.map(\.value) {
            try readWhole(argument)
        }
        switch name {
        case "upper": return .string(text.uppercased)
        case "lower": return .string(text.lowercased)
        case "title": return .string(text.titled)
        case "capitalize": return .string(text.capitalized)
        case "swapcase": return .string(text.swapped)
        case "strip": return .string(text.stripped(try optionalString(0, "chars")))
        case "lstrip": return .string(text.stripped(try optionalString(0, "chars"), right: false))
        case "rstrip": return .string(text.stripped(try optionalString(0, "chars"), left: false))
        case "split", "rsplit":
            return try split(text, name, optionalString(0, "sep"), limit(1, "maxsplit"))
        case "splitlines":
            let keepEnds = arguments.value(0, "keepends")?.isTrue ?? false
            return .list(JinjaList(text.lines(keepEnds: keepEnds).map { .string($0) }))
        case "startswith", "endswith":
            var choices: [JinjaText] = []
            if case .tuple(let items)? = arguments.positional.first {
                for case .string(let item) in items { choices.append(item) }
            } else {
                choices = [try string(0, "prefix")]
            }
            return .bool(
                choices.contains { name == "startswith" ? text.hasPrefix($0) : text.hasSuffix($0) })
        case "replace":
            let (old, new) = (try string(0, "old"), try string(1, "new"))
            return .string(try replaced(text, old, new, limit(2, "count")))
        case "find": return .int(text.find(try string(0, "sub")) ?? -1)
        case "rfind": return .int(text.findLast(try string(0, "sub")) ?? -1)
        case "index":
            guard let index = text.find(try string(0, "sub")) else {
                throw JinjaFailure.error("substring not found")
            }
            return .int(index)
        case "rindex":
            guard let index = text.findLast(try string(0, "sub")) else {
                throw JinjaFailure.error("substring not found")
            }
            return .int(index)
        case "partition", "rpartition":
            return try parted(text, string(0, "sep"), fromRight: name == "rpartition")
        case "zfill", "ljust", "rjust", "center":
            guard let width = arguments.value(0, "width")?.integer else {
                throw JinjaFailure.error("\(name) expects a width")
            }
            if name == "zfill" { return .string(try text.zeroFilled(to: width)) }
            let fill = try optionalString(1, "fillchar") ?? JinjaText(" ")
            let side: JinjaText.Side =
                name == "center" ? .center : name == "ljust" ? .left : .right
            return .string(try text.padded(to: width, side, with: fill))
        case "count":
            let part = try string(0, "sub")
            return .int(part.isEmpty ? text.count + 1 : text.split(part).count - 1)
        case "join":
            let parts = try (arguments.value(0, "iterable") ?? .none).elements().map { value in
                guard case .string(let part) = value else {
                    throw JinjaFailure.error("join: expected str instance, \(value.typeName) found")
                }
                return part
            }
            return .string(try joined(text, parts))
        case "format": return .string(try PythonFormat.braces(text, arguments))
        case "removeprefix":
            let part = try string(0, "prefix")
            return .string(text.hasPrefix(part) ? text.slice(part.count..<text.count) : text)
        case "removesuffix":
            let part = try string(0, "suffix")
            return .string(text.hasSuffix(part) ? text.slice(0..<text.count - part.count) : text)
        default: return .bool(isAll(text, name))
        }
    }

    private func parted(
        _ text: JinjaText, _ separator: JinjaText, fromRight: Bool
    ) throws -> JinjaValue {
        guard !separator.isEmpty else { throw JinjaFailure.error("empty separator") }
        guard let at = fromRight ? text.findLast(separator) : text.find(separator) else {
            let empty = JinjaValue.string(JinjaText())
            return .tuple(
                fromRight ? [empty, empty, .string(text)] : [.string(text), empty, empty])
        }
        let end = at + separator.count
        return .tuple(
            [text.slice(0..<at), text.slice(at..<end), text.slice(end..<text.count)].map {
                .string($0)
            })
    }

    /// The `is...` methods.
    private func isAll(_ text: JinjaText, _ name: String) -> Bool {
        if name == "isascii" { return text.scalars.allSatisfy(\.isASCII) }
        guard !text.isEmpty else { return false }
        switch name {
        case "isdigit":
            return text.scalars.allSatisfy {
                $0.properties.numericType == .decimal || $0.properties.numericType == .digit
            }
        case "isalpha":
            return text.scalars.allSatisfy { UnicodeClasses.shared($0.value).contains(.letter) }
        case "isalnum":
            return text.scalars.allSatisfy {
                UnicodeClasses.shared($0.value).contains(.letter)
                    || $0.properties.numericType != nil
            }
        case "isspace": return text.scalars.allSatisfy(\.isPythonSpace)
        case "isupper":
            return text.scalars.contains { $0.properties.isUppercase }
                && !text.scalars.contains { $0.properties.isLowercase }
        default:
            return text.scalars.contains { $0.properties.isLowercase }
                && !text.scalars.contains { $0.properties.isUppercase }
        }
    }

    private func split(
        _ text: JinjaText, _ name: String, _ separator: JinjaText?, _ limit: Int
    ) throws -> JinjaValue {
        // One part too many is enough to refuse.
        let limit = min(limit, JinjaLimits.elements)
        var parts: [JinjaText]
        if let separator {
            guard !separator.isEmpty else { throw JinjaFailure.error("empty separator") }
            parts =
                name == "split"
                ? text.split(separator, limit: limit) : text.splitFromRight(separator, limit: limit)
        } else if name == "split" || limit == JinjaLimits.elements {
            parts = text.splitAtWhitespace(limit: limit)
        } else {
            throw JinjaFailure.error("rsplit with a limit and without a separator is not supported")
        }
        try JinjaLimits.check(elements: parts.count)
        return .list(JinjaList(parts.map { .string($0) }))
    }

    /// Replaces, after a look at how long the result will be.
    func replaced(_ text: JinjaText, _ old: JinjaText, _ new: JinjaText, _ limit: Int) throws
        -> JinjaText
    {
        let places = old.isEmpty ? text.count + 1 : text.count / old.count
        let (growth, overflow) = min(places, limit).multipliedReportingOverflow(by: new.count)
        if overflow || growth > JinjaLimits.characters {
            let found = old.isEmpty ? places : text.split(old).count - 1
            let (exact, overflow) = min(found, limit).multipliedReportingOverflow(by: new.count)
            try JinjaLimits.check(characters: overflow ? .max : exact)
        }
        return text.replacing(old, with: new, limit: limit)
    }

    /// Joins, after a look at how long the result will be.
    func joined(_ separator: JinjaText, _ parts: [JinjaText]) throws -> JinjaText {
        var total = 0
        for part in parts {
            total += part.count + separator.count
            try JinjaLimits.check(characters: total - separator.count)
        }
        return separator.joined(parts)
    }
}
