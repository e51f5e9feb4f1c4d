// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCompiler
import MartletCore
package import MartletGraph
package import MartletModels
package import MartletReference

/// Runs the same steps as a `StepRunner` through the reference, every row with logits.
package struct ReferenceRunner {
    private let interpreters: [ReferenceInterpreter]
    private var states: [Int: ReferenceState] = [:]
    private var lengths: [RequestStream: Int] = [:]

    /// Prepares a graph at any stage of compilation: parameters are made as the compiler makes them.
    ///
    /// - Throws: `MartletError` if a weight cannot be made.
    package init(_ graph: Graph, weights: any WeightProvider) throws {
        try self.init([graph], weights: weights)
    }

    /// Prepares entry points that share requests, in the order of their streams.
    ///
    /// - Throws: `MartletError` if a weight cannot be made.
    package init(_ graphs: [Graph], weights: any WeightProvider) throws {
        interpreters = try graphs.map { graph in
            try ReferenceInterpreter(graph, weights: Self.values(graph, weights))
        }
    }

    private static func values(
        _ graph: Graph, _ weights: any WeightProvider
    ) throws -> [String: WeightValue] {
        var values: [String: WeightValue] = [:]
        for node in graph.nodes where node.op == "parameter" {
            let request = ParameterRequest(
                name: node.attributes["name"]?.string ?? "",
                expression: try WeightExpression(parameter: node),
                format: node.results[0].format, shape: node.results[0].fixedShape ?? [],
                layout: "rows")
            values[request.name] = try Compiler.materialize(
                request, constants: [:], weights: weights)
        }
        return values
    }

    /// Runs a step.
    ///
    /// - Throws: What the interpreter throws.
    package mutating func run(_ parts: [StepPart], stream: Int = 0) throws -> ReferenceResult {
        var requests = parts.map { part in
            ReferenceRequest(
                tokens: part.tokens, start: lengths[RequestStream(part.request, stream)] ?? 0,
                logitRows: Array(part.tokens.indices),
                state: states[part.request] ?? ReferenceState())
        }
        let result = try interpreters[stream].evaluate(&requests)
        for (part, request) in zip(parts, requests) {
            states[part.request] = request.state
            lengths[RequestStream(part.request, stream), default: 0] += part.tokens.count
        }
        return result
    }
}
