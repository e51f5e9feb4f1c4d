// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore
public import MartletGraph
public import MartletModels

/// Compiles graphs: rewrites them, chooses kernels for a backend, and plans memory.
public struct Compiler: Sendable {
    /// What a user may choose.
    public struct Options: Sendable {
        /// Precisions.
        public var recipe = PrecisionRecipe()
        /// Rules of the user's own, applied after the built-in fusions.
        public var rules: [RewriteRule] = []
        /// Names of built-in rules to leave out.
        public var disabledRules: Set<String> = []
        /// Module paths whose values become outputs, with `*` for any run of characters.
        public var taps: [String] = []

        /// The defaults: weights as stored, exact activations, all rules.
        public init() {}
    }

    /// The choices in force.
    public let options: Options

    /// Checks the options.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a rule name that does not exist.
    public init(options: Options = Options()) throws { try self.init(options: options, for: []) }

    /// Checks the options for some devices, whose own rules may be left out as well.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a rule name that does not exist.
    package init(options: Options = Options(), for catalogs: [any KernelCatalog]) throws {
        let known = Pipeline.knownRules(for: catalogs)
        for name in options.disabledRules.sorted() where !known.contains(name) {
            throw MartletError(
                .invalidArgument, "there is no rule named '\(name)'",
                mend: "Rules: \(known.joined(separator: ", "))")
        }
        self.options = options
    }

    /// Rewrites a traced graph without reference to any device.
    ///
    /// - Parameters:
    ///   - graph: As traced.
    ///   - weights: Where formats of stored weights are looked up.
    ///   - observe: Called after each pass that changed something.
    /// - Throws: What a rule or the verifier throws.
    public func optimize(
        _ graph: Graph, weights: any WeightProvider, observe: (Pipeline.Record) -> Void = { _ in }
    ) throws -> Graph {
        var graph = graph
        try GraphVerifier.verify(graph)
        for index in graph.kvGroups.indices {
            graph.kvGroups[index].scheme.dtype = options.recipe.kvType
        }
        // A tapped module shows all of its rows, not only those that get logits.
        let unwanted: Set<String> = options.taps.isEmpty ? [] : ["gather-rows-early"]
        try Pipeline.neutral(
            AppliedRecipe(recipe: options.recipe, weights: weights), userRules: options.rules,
            disabled: options.disabledRules.union(unwanted)
        ).run(on: &graph, observe: observe)
        try addTaps(to: &graph)
        return graph
    }

    private func addTaps(to graph: inout Graph) throws {
        for pattern in options.taps {
            let before = graph.outputs.count
            for node in graph.nodes
            where !["input", "parameter", "constant", "split", "kvWrite", "sample"].contains(
                node.op)
                && Glob.matches(node.path, pattern)
            {
                // A node with several results shows its last: the one that carries its module's name.
                let value = node.value(node.results.count - 1)
                var name = node.path
                var number = 2
                while graph.outputs.contains(where: { $0.name == name }) {
                    name = "\(node.path)#\(number)"
                    number += 1
                }
                graph.outputs.append(GraphOutput(name: name, value: value))
            }
            guard graph.outputs.count > before else {
                throw MartletError(
                    .invalidArgument, "no module matches the tap '\(pattern)'",
                    mend: "List module paths with: martlet inspect MODEL --graph")
            }
        }
    }
}

/// Shell-like matching of module paths: `*` stands for any run of characters.
enum Glob {
    static func matches(_ text: String, _ pattern: String) -> Bool {
        let text = Array(text.utf8), pattern = Array(pattern.utf8)
        var (t, p) = (0, 0)
        var restart: (text: Int, pattern: Int)?
        while t < text.count {
            if p < pattern.count, pattern[p] == UInt8(ascii: "*") {
                restart = (t, p + 1)
                p += 1
            } else if p < pattern.count, pattern[p] == text[t] {
                t += 1
                p += 1
            } else if let mark = restart {
                restart = (mark.text + 1, mark.pattern)
                t = mark.text + 1
                p = mark.pattern
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
