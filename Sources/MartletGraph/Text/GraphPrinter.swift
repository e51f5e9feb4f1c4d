// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

extension Graph {
    /// The graph as text, which `Graph(text:)` reads back; values are numbered in order.
    ///
    /// ```
    /// graph decode {
    ///   kv layers=2 heads=1 dim=16 dtype=f32 block=16
    ///   %0 = input {name="tokens"} : i32[T] @tokens
    ///   %1 = parameter {name="embedding.weight"} : f32[256, 64] @embedding.weight
    ///   %2 = embedding(%1, %0) {dtype="f32"} : f32[T, 64] @embedding
    ///   return hidden=%2
    /// }
    /// ```
    public var text: String {
        var lines = ["graph \(name) {"]
        for group in kvGroups { lines.append("  kv \(group)") }
        var numbers: [ValueID: Int] = [:]
        for node in nodes {
            let names = node.results.indices.map { index in
                let number = numbers.count
                numbers[node.value(index)] = number
                return "%\(number)"
            }
            var line = "  \(names.joined(separator: ", ")) = \(node.op)"
            if !node.operands.isEmpty {
                let operands = node.operands.map { $0.map { "%\(numbers[$0] ?? -1)" } ?? "_" }
                line += "(\(operands.joined(separator: ", ")))"
            }
            if !node.attributes.isEmpty { line += " {\(Self.text(of: node.attributes))}" }
            line += " : " + node.results.map(\.description).joined(separator: "; ")
            if !node.path.isEmpty { line += " @\(node.path)" }
            lines.append(line)
        }
        let results = outputs.map { "\($0.name)=%\(numbers[$0.value] ?? -1)" }
        lines.append("  return \(results.joined(separator: ", "))")
        lines.append("}")
        return lines.joined(separator: "\n") + "\n"
    }

    static func text(of attributes: [String: AttributeValue]) -> String {
        attributes.sorted { $0.key < $1.key }.map { name, value in
            switch value {
            case .int(let number): "\(name)=\(number)"
            case .float(let number): "\(name)=\(number)"
            case .bool(let flag): "\(name)=\(flag)"
            case .ints(let list): "\(name)=[\(list.map(String.init).joined(separator: ", "))]"
            case .string(let word): "\(name)=\"\(escape(word))\""
            }
        }.joined(separator: ", ")
    }

    private static func escape(_ word: String) -> String {
        var result = ""
        for character in word.unicodeScalars {
            switch character {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(character)
            }
        }
        return result
    }
}
