// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

extension Graph {
    /// Reads the text form.
    ///
    /// - Parameters:
    ///   - text: What `text` writes; types are taken as written and checked by `GraphVerifier`.
    ///   - ops: Ops the graph may use.
    ///   - constants: Values of its `constant` nodes, by name.
    /// - Throws: `MartletError` `.corrupt` naming the line.
    public init(text: String, ops: OpSet = .builtIn, constants: [String: TensorData] = [:]) throws {
        self.init(name: "", ops: ops)
        self.constants = constants
        var values: [Substring: ValueID] = [:]
        var isClosed = false
        for (index, raw) in text.split(separator: "\n", omittingEmptySubsequences: false)
            .enumerated()
        {
            var scanner = GraphScanner(raw, line: index + 1)
            if scanner.isAtEnd { continue }
            guard !isClosed else { throw scanner.failure("text after the closing brace") }
            if name.isEmpty {
                try scanner.expect("graph")
                name = String(try scanner.word())
                try scanner.expect("{")
            } else if scanner.take("kv ") {
                kvGroups.append(try scanner.kvGroup())
            } else if scanner.take("return") {
                while !scanner.isAtEnd {
                    let name = String(try scanner.word())
                    try scanner.expect("=")
                    outputs.append(
                        GraphOutput(name: name, value: try scanner.value(in: values)))
                    if !scanner.take(",") { break }
                }
            } else if scanner.take("}") {
                isClosed = true
            } else {
                try parseNode(&scanner, &values)
            }
            guard scanner.isAtEnd else { throw scanner.failure("unexpected text") }
        }
        guard isClosed else { throw MartletError(.corrupt, "graph text ends without '}'") }
    }

    private mutating func parseNode(
        _ scanner: inout GraphScanner, _ values: inout [Substring: ValueID]
    ) throws {
        var names: [Substring] = []
        repeat { names.append(try scanner.valueName()) } while scanner.take(",")
        try scanner.expect("=")
        let op = String(try scanner.word())
        var operands: [ValueID?] = []
        if scanner.take("(") {
            repeat {
                operands.append(scanner.take("_") ? nil : try scanner.value(in: values))
            } while scanner.take(",")
            try scanner.expect(")")
        }
        let attributes = scanner.take("{") ? try scanner.attributes() : [:]
        try scanner.expect(":")
        var results: [TensorType] = []
        repeat { results.append(try scanner.type()) } while scanner.take(";")
        let path = scanner.take("@") ? String(scanner.rest()) : ""
        guard results.count == names.count else {
            throw scanner.failure("\(names.count) results have \(results.count) types")
        }
        for (name, value) in zip(
            names, insert(op, operands, attributes, results: results, path: path))
        {
            guard values.updateValue(value, forKey: name) == nil else {
                throw scanner.failure("\(name) is defined twice")
            }
        }
    }
}

/// Reads one line of graph text.
struct GraphScanner {
    private var text: Substring
    private let line: Int

    init(_ text: Substring, line: Int) {
        self.text = text
        self.line = line
        skipSpace()
    }

    var isAtEnd: Bool { text.isEmpty }

    func failure(_ message: String) -> MartletError {
        MartletError(.corrupt, "graph text, line \(line): \(message) at '\(text.prefix(24))'")
    }

    private mutating func skipSpace() {
        while let first = text.first, first == " " || first == "\t" || first == "\r" {
            text.removeFirst()
        }
    }

    mutating func take(_ token: String) -> Bool {
        guard text.hasPrefix(token) else { return false }
        text.removeFirst(token.count)
        skipSpace()
        return true
    }

    mutating func expect(_ token: String) throws {
        guard take(token) else { throw failure("expected '\(token)'") }
    }

    private mutating func takeWhile(_ accept: (Character) -> Bool) -> Substring {
        let run = text.prefix(while: accept)
        text.removeFirst(run.count)
        skipSpace()
        return run
    }

    mutating func word() throws -> Substring {
        let run = takeWhile { $0.isLetter || $0.isNumber || $0 == "_" || $0 == "." || $0 == "-" }
        guard !run.isEmpty else { throw failure("expected a word") }
        return run
    }

    mutating func rest() -> Substring {
        defer { text = "" }
        return text
    }

    mutating func valueName() throws -> Substring {
        guard text.first == "%" else { throw failure("expected a value such as %3") }
        return takeWhile { $0 == "%" || $0.isNumber || $0.isLetter }
    }

    mutating func value(in values: [Substring: ValueID]) throws -> ValueID {
        let name = try valueName()
        guard let value = values[name] else { throw failure("\(name) is not defined") }
        return value
    }

    mutating func type() throws -> TensorType {
        let formatText = try word()
        guard let format = ElementFormat(String(formatText)) else {
            throw failure("'\(formatText)' is no element format")
        }
        try expect("[")
        var shape: [Dimension] = []
        while !take("]") {
            let run = takeWhile { $0 != "," && $0 != "]" }
            guard let size = Dimension(String(run).filter { $0 != " " }) else {
                throw failure("'\(run)' is no dimension")
            }
            shape.append(size)
            _ = take(",")
        }
        return TensorType(format, shape)
    }

    mutating func attributes() throws -> [String: AttributeValue] {
        var result: [String: AttributeValue] = [:]
        while !take("}") {
            let name = String(try word())
            try expect("=")
            guard result.updateValue(try attribute(), forKey: name) == nil else {
                throw failure("attribute '\(name)' is given twice")
            }
            _ = take(",")
        }
        return result
    }

    private mutating func attribute() throws -> AttributeValue {
        if take("[") {
            var list: [Int] = []
            while !take("]") {
                let run = takeWhile { $0.isNumber || $0 == "-" }
                guard let number = Int(run) else { throw failure("expected an integer") }
                list.append(number)
                _ = take(",")
            }
            return .ints(list)
        }
        if text.first == "\"" { return .string(try quoted()) }
        if take("true") { return .bool(true) }
        if take("false") { return .bool(false) }
        let run = takeWhile { $0.isNumber || "+-.einfa".contains($0) }
        if let number = Int(run) { return .int(number) }
        guard let number = Double(run) else { throw failure("'\(run)' is no attribute value") }
        return .float(number)
    }

    private mutating func quoted() throws -> String {
        text.removeFirst()
        var result = ""
        while let character = text.popFirst() {
            switch character {
            case "\"":
                skipSpace()
                return result
            case "\\":
                guard let next = text.popFirst() else { throw failure("text ends in an escape") }
                result.append(next == "n" ? "\n" : next)
            default: result.append(character)
            }
        }
        throw failure("text without a closing quote")
    }

    mutating func kvGroup() throws -> KVGroup {
        var numbers: [String: Int] = [:]
        var group = KVGroup.defaultName
        var dtype = DType.f32
        var kind = KVGroup.Kind.selfAttention
        while !isAtEnd {
            let name = String(try word())
            try expect("=")
            let value = String(try word())
            switch name {
            case "name": group = value
            case "dtype":
                guard let type = DType(rawValue: value) else { throw failure("bad dtype \(value)") }
                dtype = type
            case "kind":
                guard let parsed = KVGroup.Kind(rawValue: value) else {
                    throw failure("bad kind \(value)")
                }
                kind = parsed
            case "layers", "heads", "dim", "window", "block", "scales":
                guard let number = Int(value), number >= 0 else { throw failure("bad \(name)") }
                numbers[name] = number
            default: throw failure("unknown KV property '\(name)'")
            }
        }
        guard let layers = numbers["layers"], let heads = numbers["heads"], let dim = numbers["dim"]
        else { throw failure("a KV group needs layers, heads and dim") }
        return KVGroup(
            name: group, layerCount: layers, kvHeadCount: heads, headDim: dim,
            scheme: KVScheme(dtype: dtype, scaleBytesPerRow: numbers["scales"] ?? 0),
            window: numbers["window"], kind: kind, blockSize: numbers["block"] ?? 16)
    }
}
