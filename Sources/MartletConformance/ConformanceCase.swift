// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletGraph

/// One thing to check: a small graph around an op, its weights, and the steps to run.
package struct ConformanceCase: Sendable {
    /// Tokens of one request in a step; positions follow those of earlier steps.
    package struct Part: Sendable {
        /// Which request.
        package let request: Int
        /// Token ids.
        package let tokens: [Int32]
    }

    /// What is run.
    package struct Subject: Sendable {
        /// The graph.
        package var graph: Graph
        /// Its weights.
        package var weights: [String: WeightValue]
        /// Steps, each a few parts of different requests.
        package var steps: [[Part]]
    }

    /// Op under test.
    package let op: String
    /// What distinguishes the case: types and sizes.
    package let detail: String
    /// Largest error; see `Tolerances`.
    package let tolerance: Double
    /// Numbers below this size are compared as if they were of this size.
    let smallestMagnitude: Double
    /// Makes the graph, with numbers that depend on op, detail and the run's seed.
    let make: @Sendable (inout CaseBuilder) throws -> Void
    let steps: [[Part]]

    /// Op and detail.
    package var name: String { "\(op) \(detail)" }

    init(
        _ op: String, _ detail: String, tolerance: Double, smallestMagnitude: Double = 1e-30,
        steps: [[Part]] = Self.oneStep,
        make: @escaping @Sendable (inout CaseBuilder) throws -> Void
    ) {
        self.op = op
        self.detail = detail
        self.tolerance = tolerance
        self.smallestMagnitude = smallestMagnitude
        self.steps = steps
        self.make = make
    }

    /// Builds what is run.
    ///
    /// - Parameter seed: What its numbers depend on beside its name.
    /// - Throws: `MartletError` if the graph is not valid.
    package func subject(seed: UInt64 = 0) throws -> Subject {
        var builder = CaseBuilder(name: name, seed: seed)
        try make(&builder)
        try GraphVerifier.verify(builder.graph)
        return Subject(graph: builder.graph, weights: builder.weights, steps: steps)
    }

    /// Rows of the table that cases look rows up in.
    static let rowCount = 18

    /// All rows in one step, of two requests.
    static let oneStep = [
        [
            Part(request: 0, tokens: (0..<13).map { $0 }),
            Part(request: 1, tokens: (13..<Int32(rowCount)).map { $0 }),
        ]
    ]
}

/// Collects graph and weights of a case.
struct CaseBuilder {
    private(set) var graph: Graph
    private(set) var weights: [String: WeightValue] = [:]
    var random: SeededRandom
    private var inputs: [String: ValueID] = [:]

    init(name: String, seed: UInt64) {
        graph = Graph(name: "case")
        random = SeededRandom(name: name, seed: seed)
    }

    mutating func input(_ name: String) -> ValueID {
        if let known = inputs[name] { return known }
        let type = TensorType(.i32, [name == "logitRows" ? .O : .T])
        let value = graph.insert("input", [], ["name": .string(name)], results: [type], path: name)[
            0]
        inputs[name] = value
        return value
    }

    /// A parameter with its value.
    mutating func parameter(_ name: String, _ value: WeightValue) -> ValueID {
        weights[name] = value
        let format: ElementFormat =
            switch value {
            case .plain(let tensor): .plain(tensor.dtype)
            case .quantized(let tensor): .weight(tensor.scheme)
            }
        let type = TensorType(format, value.shape.map { Dimension($0) })
        return graph.insert("parameter", [], ["name": .string(name)], results: [type], path: name)[
            0]
    }

    /// A parameter of random numbers.
    mutating func parameter(
        _ name: String, _ dtype: DType, _ shape: [Int], in range: Range<Float> = -1..<1
    ) throws -> ValueID { parameter(name, try random.plain(dtype, shape, in: range)) }

    /// Random rows `[T, columns]`, looked up in a table by token.
    mutating func rows(
        _ columns: Int, _ dtype: DType, name: String = "x", in range: Range<Float> = -1..<1
    ) throws -> ValueID {
        let table = try parameter(name, dtype, [ConformanceCase.rowCount, columns], in: range)
        return try op("embedding", [table, input("tokens")], ["dtype": .string(dtype.rawValue)])
    }

    mutating func op(
        _ name: String, _ operands: [ValueID?], _ attributes: [String: AttributeValue] = [:]
    ) throws -> ValueID { try ops(name, operands, attributes)[0] }

    mutating func ops(
        _ name: String, _ operands: [ValueID?], _ attributes: [String: AttributeValue] = [:]
    ) throws -> [ValueID] { try graph.insert(name, operands, attributes, path: "case.\(name)") }

    mutating func kvGroup(_ group: KVGroup) { graph.kvGroups.append(group) }

    mutating func output(_ value: ValueID, _ name: String = "y") {
        graph.outputs.append(GraphOutput(name: name, value: value))
    }
}
