// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletGraph

/// The device-neutral graphs that an engine keeps, and the values of their constants.
extension Compiler {
    /// Values of all constants of some graphs; graphs share by name.
    ///
    /// - Throws: `MartletError` `.unsupported` if two graphs give a name different values.
    package static func constants(of graphs: [Graph]) throws -> [String: TensorData] {
        try graphs.reduce(into: [:]) { all, graph in
            for (name, value) in graph.constants.sorted(by: { $0.key < $1.key }) {
                guard let known = all.updateValue(value, forKey: name) else { continue }
                guard known.dtype == value.dtype, known.shape == value.shape,
                    known.bytes.hasSameBytes(as: value.bytes)
                else {
                    throw MartletError(
                        .unsupported, "two entry points give constant '\(name)' different values",
                        mend: "Give the constants different names")
                }
            }
        }
    }

    /// Reads a kept graph back: text that anyone may have written.
    ///
    /// - Parameters:
    ///   - text: Graph text.
    ///   - entryPoint: Name it must have.
    ///   - constants: Values by name.
    /// - Throws: `MartletError` `.corrupt` for text that is no graph, `.shapeMismatch` for a graph
    ///   that breaks a rule, `.limitExceeded` for sizes that no model has.
    package static func readGraph(
        _ text: String, entryPoint: String, constants: [String: TensorData]
    ) throws -> Graph {
        var graph = try Graph(text: text)
        guard graph.name == entryPoint else {
            throw MartletError(
                .corrupt, "the kept graph of '\(entryPoint)' is named '\(graph.name)'")
        }
        for node in graph.nodes where node.op == "constant" {
            guard let name = node.attributes["name"]?.string, let value = constants[name] else {
                throw MartletError(
                    .corrupt, "the engine lacks constant '\(node.attributes["name"]?.string ?? "")'"
                )
            }
            guard let type = node.results.first, type.fixedShape == value.shape,
                type.format == .plain(value.dtype)
            else {
                throw MartletError(
                    .shapeMismatch,
                    "constant '\(name)' is \(value.dtype.rawValue) \(value.shape), the kept graph "
                        + "states \(node.results.first?.description ?? "nothing")")
            }
            graph.constants[name] = value
        }
        try GraphVerifier.verify(graph)
        try SizeLimits.check(graph)
        return graph
    }
}

/// Sizes beyond which a graph is no model: below them no product of sizes in a cost, a buffer or
/// a KV block leaves `Int`.
private enum SizeLimits {
    static let elements = 1 << 40
    static let factor = 1 << 16
    static let kvSizes = (layers: 1 << 16, heads: 1 << 14, headDim: 1 << 14, block: 1 << 12)

    static func check(_ graph: Graph) throws {
        for node in graph.nodes {
            for type in node.results where !isModest(type) {
                throw MartletError(
                    .limitExceeded,
                    "\(node.op) of '\(node.path)' has a value \(type), above \(elements) elements")
            }
        }
        for group in graph.kvGroups {
            guard (1...kvSizes.layers).contains(group.layerCount),
                (1...kvSizes.heads).contains(group.kvHeadCount),
                (1...kvSizes.headDim).contains(group.headDim),
                (1...kvSizes.block).contains(group.blockSize),
                (0...kvSizes.headDim).contains(group.scheme.scaleBytesPerRow),
                (group.window ?? 1) > 0
            else {
                throw MartletError(
                    .limitExceeded,
                    "a KV group of \(group.layerCount) layers, \(group.kvHeadCount) heads of "
                        + "\(group.headDim) and blocks of \(group.blockSize) is no model's")
            }
        }
    }

    private static func isModest(_ type: TensorType) -> Bool {
        var product = 1
        for size in type.shape {
            let symbols = [size.tokens, size.requests, size.logitRows, size.context]
            guard symbols.allSatisfy({ (0...factor).contains($0) }),
                (0...elements).contains(size.constant)
            else { return false }
            let (next, overflow) = product.multipliedReportingOverflow(
                by: max(1, size.constant + symbols.reduce(0, +)))
            guard !overflow, next <= elements else { return false }
            product = next
        }
        return true
    }
}
