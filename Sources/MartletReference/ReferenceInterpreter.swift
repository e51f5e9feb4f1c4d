// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletGraph

/// Evaluates a graph slowly and exactly: the oracle of every numeric test.
///
/// A step packs rows `[T, ...]` of several requests, prefill and decode mixed. Fused ops are never
/// computed as such: the interpreter evaluates what they decompose to.
///
/// Numerics: sums, products with weights, exponentials and roots in f64 from f32 inputs, rounded
/// once to f32; each op's result is then rounded to the dtype of its type. Keys and values are
/// rounded to their KV group's type. `sample` is greedy: the lowest id among the largest logits.
package struct ReferenceInterpreter: Sendable {
    /// Finds a weight by its parameter name.
    package typealias WeightSource = @Sendable (String) throws -> WeightValue

    /// The graph as given.
    package let graph: Graph
    private let plain: PlainGraph
    private let weights: WeightSource

    /// Prepares a graph.
    ///
    /// - Parameters:
    ///   - graph: Any graph of known ops; fused ones are decomposed.
    ///   - weights: Finds a weight by its parameter name; called once per parameter and step.
    /// - Throws: What the verifier finds, or `MartletError` `.internalError` if a decomposition's
    ///   types differ from those of its fused op.
    package init(_ graph: Graph, weights: @escaping WeightSource) throws {
        try GraphVerifier.verify(graph)
        for group in graph.kvGroups {
            guard 1...(1 << 20) ~= group.layerCount, 1...(1 << 20) ~= group.kvHeadCount,
                1...(1 << 20) ~= group.headDim
            else {
                throw MartletError(.shapeMismatch, "a KV group has sizes out of bounds: \(group)")
            }
        }
        self.graph = graph
        plain = try PlainGraph(graph)
        self.weights = weights
    }

    /// Prepares a graph whose weights are at hand.
    ///
    /// - Throws: As the other initializer.
    package init(_ graph: Graph, weights: [String: WeightValue]) throws {
        try self.init(graph) { name in
            guard let value = weights[name] else {
                throw MartletError(.notFound, "there is no weight named '\(name)'")
            }
            return value
        }
    }

    /// An empty cache for a request.
    package var emptyState: ReferenceState { ReferenceState() }

    /// Computes one step.
    ///
    /// - Parameters:
    ///   - requests: The requests of the step; their states gain the step's keys and values.
    ///   - taps: Which module paths to keep the values of.
    /// - Returns: The graph's outputs and the tapped values.
    /// - Throws: `MartletError` naming the node's path: a weight that is missing or has the wrong
    ///   shape, an id outside its table, positions that leave a gap, an op without evaluation.
    package func evaluate(
        _ requests: inout [ReferenceRequest], taps: (String) -> Bool = { _ in false }
    ) throws -> ReferenceResult {
        var step = try ReferenceStep(requests)
        var values: [ValueID: ReferenceValue] = [:]
        var tapped: [ReferenceTap] = []
        var wanted = Set(plain.graph.outputs.map(\.value))
        for node in graph.nodes where taps(node.path) {
            for index in node.results.indices { wanted.insert(plain.value(node.value(index))) }
        }
        for (node, dying) in plain.schedule {
            let results: [ReferenceValue]
            do {
                results = try evaluate(node, values, &step)
            } catch let error as MartletError {
                throw error.adding("path", node.path).adding("op", node.op)
            }
            for (index, value) in results.enumerated() { values[node.value(index)] = value }
            for value in dying where !wanted.contains(value) { values[value] = nil }
        }
        for node in graph.nodes where taps(node.path) {
            for index in node.results.indices {
                guard let value = values[plain.value(node.value(index))] else { continue }
                tapped.append(
                    ReferenceTap(path: node.path, op: node.op, result: index, value: value))
            }
        }
        var outputs: [String: ReferenceValue] = [:]
        for output in plain.graph.outputs { outputs[output.name] = values[output.value] }
        for index in requests.indices { requests[index].state = step.states[index] }
        return ReferenceResult(outputs: outputs, taps: tapped)
    }

    private func evaluate(
        _ node: Node, _ values: [ValueID: ReferenceValue], _ step: inout ReferenceStep
    ) throws -> [ReferenceValue] {
        let operands = node.operands.map { $0.flatMap { values[$0] } }
        let name = node.attributes["name"]?.string ?? ""
        let results: [ReferenceValue]
        switch node.op {
        case "input": results = [try step.input(name)]
        case "parameter", "constant":
            let value =
                try plain.graph.constants[name].map { WeightValue.plain($0) } ?? weights(name)
            results = [try ReferenceOperation.source(value, node.results[0], name: name)]
        default:
            guard let function = ReferenceOperation.functions[node.op] else {
                throw MartletError(.unsupported, "the reference cannot evaluate op '\(node.op)'")
            }
            let operation = ReferenceOperation(
                node: node, operands: operands, dimensions: step.dimensions,
                groups: graph.kvGroups)
            results = try function(operation, &step)
        }
        for (value, type) in zip(results, node.results) {
            let sizes = try type.shape.map { try step.size($0) }
            guard value.shape == sizes, value.format == type.format else {
                throw MartletError(
                    .internalError, "evaluated \(value.format)\(value.shape) where \(type) is due")
            }
        }
        return results
    }
}

/// What a step computed.
package struct ReferenceResult: Sendable {
    /// The graph's named results.
    package let outputs: [String: ReferenceValue]
    /// Values of tapped module paths, in execution order.
    package let taps: [ReferenceTap]

    /// The numbers of a named result.
    ///
    /// - Throws: `MartletError` `.notFound` if the graph has no such output.
    package func floats(_ name: String) throws -> [Float] {
        guard let value = outputs[name] else {
            throw MartletError(.notFound, "the graph has no output named '\(name)'")
        }
        return try value.floats()
    }
}

/// The value of one node's result.
package struct ReferenceTap: Sendable {
    /// Module path of the node; several nodes may share one.
    package let path: String
    /// Op name.
    package let op: String
    /// Which result of the node.
    package let result: Int
    /// The value.
    package let value: ReferenceValue
}
