// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
package import MartletGraph

/// How a parameter's value comes from the checkpoint: a name, or an operation on such values.
///
/// Text form: `name[576x576]`, `concat(a[..], b[..])`, `normalizeRows(a[..])`; nests. The parts of a
/// `concat` are the row ranges that adapters may address. Kept in the engine's graph, so that
/// an engine says where each weight came from.
package indirect enum WeightExpression: Sendable, Hashable {
    /// A weight by Martlet's name, of the shape that the model declared.
    case named(String, shape: [Int])
    /// `concat` (rows), `normalizeRows`, `transpose` or `cast` of others.
    case apply(String, [WeightExpression])

    /// The expression of a `parameter` node.
    ///
    /// - Throws: `MartletError` `.corrupt` if its `source` does not parse.
    package init(parameter node: Node) throws {
        if let source = node.attributes["source"]?.string {
            self = try WeightExpression(text: source)
        } else {
            self = .named(
                node.attributes["name"]?.string ?? "", shape: node.results[0].fixedShape ?? [])
        }
    }

    /// Reads the text form.
    ///
    /// - Throws: `MartletError` `.corrupt` for other text, or for more than 64 levels.
    package init(text: String) throws {
        var rest = Substring(text)
        self = try Self.parse(&rest, depth: 0)
        guard rest.isEmpty else {
            throw MartletError(
                .corrupt, "unexpected '\(rest.prefix(20))' in weight source '\(text)'")
        }
    }

    private static func parse(_ rest: inout Substring, depth: Int) throws -> WeightExpression {
        guard depth < 64 else { throw MartletError(.corrupt, "weight source nests deeper than 64") }
        rest = rest.drop { $0 == " " }
        let name = rest.prefix { !"(),".contains($0) }
        rest.removeFirst(name.count)
        guard !name.isEmpty, !name.contains(" ") else {
            throw MartletError(.corrupt, "weight source has '\(name)' where a name is due")
        }
        guard rest.first == "(" else {
            let pieces = name.split(separator: "[", omittingEmptySubsequences: false)
            guard pieces.count == 2, !pieces[0].isEmpty, pieces[1].last == "]" else {
                throw MartletError(.corrupt, "weight source '\(name)' lacks its name or shape")
            }
            let sizes = pieces[1].dropLast().split(separator: "x", omittingEmptySubsequences: false)
            return .named(String(pieces[0]), shape: try sizes.map { try size($0, name) })
        }
        var parts: [WeightExpression] = []
        repeat {
            rest.removeFirst()
            parts.append(try parse(&rest, depth: depth + 1))
        } while rest.first == ","
        guard rest.popFirst() == ")" else {
            throw MartletError(.corrupt, "weight source lacks ')'")
        }
        return .apply(String(name), parts)
    }

    private static func size(_ text: Substring, _ name: Substring) throws -> Int {
        guard let size = Int(text), 1...sizeLimit ~= size else {
            throw MartletError(
                .corrupt,
                "size '\(text)' of weight source '\(name)' is no integer in 1 ... \(sizeLimit)")
        }
        return size
    }

    /// Small enough for sums of sizes not to overflow.
    private static let sizeLimit = 1 << 31

    /// Sizes of the value.
    package var shape: [Int] {
        switch self {
        case .named(_, let shape): return shape
        case .apply("concat", let parts):
            var shape = parts.first?.shape ?? []
            if !shape.isEmpty { shape[0] = parts.reduce(0) { $0 + ($1.shape.first ?? 0) } }
            return shape
        case .apply("transpose", let parts): return parts.first?.shape.reversed() ?? []
        case .apply(_, let parts): return parts.first?.shape ?? []
        }
    }

    /// Names of all checkpoint weights that take part.
    package var names: [String] {
        switch self {
        case .named(let name, _): [name]
        case .apply(_, let parts): parts.flatMap(\.names)
        }
    }
}

extension WeightExpression: CustomStringConvertible {
    /// The text form.
    package var description: String {
        switch self {
        case .named(let name, let shape):
            "\(name)[\(shape.map(String.init).joined(separator: "x"))]"
        case .apply(let op, let parts): "\(op)(\(parts.map(\.description).joined(separator: ", ")))"
        }
    }
}
