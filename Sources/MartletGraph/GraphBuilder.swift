// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// Records what a model computes, while the model is called once with symbolic tensors.
///
/// Operators on `Tensor` cannot throw, so the builder keeps the first failure and `finish` throws
/// it; tensors after a failure are placeholders.
public final class GraphBuilder {
    /// The graph so far.
    public private(set) var graph: Graph
    /// Type of activations.
    public let dtype: DType
    private var failure: (any Error)?
    private var scopes: [String] = []
    private var sources: [String: Tensor] = [:]

    /// Starts an empty graph.
    ///
    /// - Parameters:
    ///   - name: Entry point name.
    ///   - dtype: Type of activations: f32, f16 or bf16.
    ///   - ops: Ops that may be used.
    public init(name: String, dtype: DType = .f32, ops: OpSet = .builtIn) {
        graph = Graph(name: name, ops: ops)
        self.dtype = dtype
    }

    /// Module path of nodes recorded now.
    public var path: String { scopes.joined(separator: ".") }

    /// Records what the closure computes under a longer module path.
    public func scope<Result>(_ name: String, _ body: () -> Result) -> Result {
        scopes.append(name)
        defer { scopes.removeLast() }
        return body()
    }

    /// A field of the step record: `tokens`, `positions` or `logitRows`.
    public func input(_ name: String) -> Tensor {
        let shape: [Dimension] = name == "logitRows" ? [.O] : [.T]
        return source("input", name, TensorType(.i32, shape))
    }

    /// A weight of the checkpoint.
    ///
    /// - Parameters:
    ///   - name: Martlet's name for it, which the architecture's weight map knows.
    ///   - shape: Sizes, outputs first.
    public func parameter(_ name: String, _ shape: [Int]) -> Tensor {
        source("parameter", name, TensorType(dtype, shape.map { Dimension($0) }))
    }

    /// A value that the model computes while it is traced, such as rotary frequencies.
    public func constant(_ name: String, _ value: TensorData) -> Tensor {
        graph.constants[name] = value
        return source(
            "constant", name, TensorType(value.dtype, value.shape.map { Dimension($0) }))
    }

    private func source(_ op: String, _ name: String, _ type: TensorType) -> Tensor {
        if let known = sources[name] { return known }
        let value = graph.insert(op, [], ["name": .string(name)], results: [type], path: name)[0]
        let tensor = Tensor(value: value, type: type, builder: self)
        sources[name] = tensor
        return tensor
    }

    /// Declares a group of KV layers.
    ///
    /// - Returns: Its index, for attention.
    public func kvGroup(_ group: KVGroup) -> Int {
        graph.kvGroups.append(group)
        return graph.kvGroups.count - 1
    }

    /// Records a node with several results.
    public func record(
        _ op: String, _ operands: [Tensor?], _ attributes: [String: AttributeValue] = [:],
        resultCount: Int
    ) -> [Tensor] {
        do {
            let values = try graph.insert(op, operands.map { $0?.value }, attributes, path: path)
            return values.map { value in
                Tensor(
                    value: value, type: graph.type(of: value) ?? TensorType(dtype, []),
                    builder: self)
            }
        } catch {
            if failure == nil { failure = error }
            let placeholder = operands.compactMap { $0 }.first ?? input("tokens")
            return Array(repeating: placeholder, count: max(resultCount, 1))
        }
    }

    /// Records a node with one result.
    public func record(
        _ op: String, _ operands: [Tensor?], _ attributes: [String: AttributeValue] = [:]
    ) -> Tensor { record(op, operands, attributes, resultCount: 1)[0] }

    /// Notes a failure of the model itself; `finish` throws the first one.
    public func fail(_ error: any Error) { if failure == nil { failure = error } }

    /// Names a result of the graph.
    public func output(_ name: String, _ tensor: Tensor) {
        graph.outputs.append(GraphOutput(name: name, value: tensor.value))
    }

    /// The recorded graph, verified.
    ///
    /// - Throws: The first failure while recording, or what the verifier finds.
    public func finish() throws -> Graph {
        if let failure { throw failure }
        try GraphVerifier.verify(graph)
        return graph
    }
}
