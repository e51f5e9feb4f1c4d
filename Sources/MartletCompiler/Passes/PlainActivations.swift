// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletGraph

/// Undoes what coded activations made of a graph.
enum PlainActivations {
    /// Takes out `quantize` nodes and the formats that producers took over from them.
    ///
    /// - Returns: How many values became plain.
    /// - Throws: What the ops say of the types that follow.
    static func restore(in graph: inout Graph) throws -> Int {
        var coded: Set<ValueID> = []
        for node in graph.nodes {
            for (index, type) in node.results.enumerated() where type.format.activation != nil {
                coded.insert(node.value(index))
            }
        }
        guard !coded.isEmpty else { return 0 }
        let producers = Set(coded.map(\.node))
        for old in graph.nodes {
            // Operands may have become others meanwhile.
            guard let node = graph.node(old.id), !isSource(node.op) else { continue }
            if node.op == "quantize", let source = node.operands[0] {
                graph.replaceUses(of: node.value(), with: source)
                continue
            }
            var attributes = node.attributes
            if producers.contains(node.id) { attributes["format"] = nil }
            // Plain inputs tell the type that coded ones needed words for.
            if node.op == "linear", let input = old.operands[0], coded.contains(input) {
                let dtype = attributes.removeValue(forKey: "dtype")
                if try graph.impliedResults(of: node, attributes: attributes) != node.results {
                    attributes["dtype"] = dtype
                }
            }
            let plain = try graph.impliedResults(of: node, attributes: attributes)
            graph.update(node.id) {
                $0.attributes = attributes
                $0.results = plain
            }
            if node.op == "dequantize", let source = node.operands[0],
                graph.type(of: source) == plain.first
            {
                graph.replaceUses(of: node.value(), with: source)
            }
        }
        DeadCode.remove(from: &graph)
        return coded.count
    }

    private static func isSource(_ op: String) -> Bool {
        ["input", "parameter", "constant"].contains(op)
    }
}

extension Compiler {
    /// A kept graph with other activation formats: what building the model with them would have kept.
    ///
    /// - Parameters:
    ///   - graph: The graph that an engine keeps.
    ///   - format: Format of the inputs of linears with coded weights; nil for exact.
    ///   - disabledRules: Rules that the engine was built without.
    /// - Throws: What the rules or the verifier throw.
    package static func changeActivations(
        of graph: Graph, to format: ActivationFormat?, disabledRules: Set<String> = []
    ) throws -> Graph {
        var graph = graph
        try Pipeline.activations(PrecisionRecipe(activations: format), disabled: disabledRules)
            .run(on: &graph)
        return graph
    }
}
