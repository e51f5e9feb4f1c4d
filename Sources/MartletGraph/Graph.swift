// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// Identity of a node within its graph; stays the same while other nodes come and go.
public struct NodeID: Sendable, Hashable, Comparable {
    let number: Int
    /// Order of creation.
    public static func < (a: NodeID, b: NodeID) -> Bool { a.number < b.number }
}

/// One result of a node.
public struct ValueID: Sendable, Hashable {
    /// The node that makes it.
    public let node: NodeID
    /// Which of its results.
    public let result: Int
}

/// One operation: op name, operands, attributes, result types, and the module path that made it.
public struct Node: Sendable {
    /// Identity.
    public let id: NodeID
    /// Op name, defined in an `OpSet`.
    public var op: String
    /// Operands in the op's order; nil where an optional one is absent.
    public var operands: [ValueID?]
    /// Constants of the operation.
    public var attributes: [String: AttributeValue]
    /// Types of the results.
    public var results: [TensorType]
    /// Module path, such as `layers.3.attention.q`.
    public var path: String

    /// A result by index.
    public func value(_ index: Int = 0) -> ValueID { ValueID(node: id, result: index) }
}

/// A named result of the whole graph.
public struct GraphOutput: Sendable, Hashable {
    /// Name, such as `logits`.
    public var name: String
    /// The value.
    public var value: ValueID

    /// Names a value.
    public init(name: String, value: ValueID) {
        self.name = name
        self.value = value
    }
}

/// A program in static single assignment form over the ops of an `OpSet`.
///
/// Nodes are kept in an order in which operands precede their users.
public struct Graph: Sendable {
    /// Entry point name, such as `decode`.
    public var name: String
    /// Nodes in execution order.
    public private(set) var order: [NodeID] = []
    private var table: [NodeID: Node] = [:]
    private var nextNumber = 0
    /// Named results.
    public var outputs: [GraphOutput] = []
    /// KV groups that `kvWrite` and attention name by index.
    public var kvGroups: [KVGroup] = []
    /// Values of `constant` nodes, by name.
    public var constants: [String: TensorData] = [:]
    /// Ops the graph may use.
    public let ops: OpSet

    /// An empty graph.
    public init(name: String, ops: OpSet = .builtIn) {
        self.name = name
        self.ops = ops
    }

    /// Nodes in execution order.
    public var nodes: [Node] { order.compactMap { table[$0] } }

    /// A node, nil if it was removed.
    public func node(_ id: NodeID) -> Node? { table[id] }

    /// The node that makes a value.
    public func producer(of value: ValueID) -> Node? { table[value.node] }

    /// The type of a value; nil if its node is gone.
    public func type(of value: ValueID) -> TensorType? {
        guard let node = table[value.node], node.results.indices.contains(value.result) else {
            return nil
        }
        return node.results[value.result]
    }

    /// Nodes that read a value, in execution order.
    public func users(of value: ValueID) -> [Node] {
        nodes.filter { $0.operands.contains(value) }
    }

    /// How often a value is read, by nodes and as an output.
    public func useCount(of value: ValueID) -> Int {
        nodes.reduce(0) { $0 + $1.operands.count { $0 == value } }
            + outputs.count { $0.value == value }
    }

    /// Adds a node, inferring its result types.
    ///
    /// - Parameters:
    ///   - op: Op name.
    ///   - operands: Operands in the op's order.
    ///   - attributes: Constants of the operation.
    ///   - path: Module path.
    ///   - successor: Node to insert before; nil appends.
    /// - Returns: The results.
    /// - Throws: `MartletError` `.shapeMismatch` or `.unsupported` if the op does not accept the operands.
    @discardableResult
    public mutating func insert(
        _ op: String, _ operands: [ValueID?], _ attributes: [String: AttributeValue] = [:],
        path: String, before successor: NodeID? = nil
    ) throws -> [ValueID] {
        let types = operands.map { $0.flatMap(type(of:)) }
        let definition = try ops.definition(of: op)
        let results: [TensorType]
        do {
            results = try definition.infer(
                OpContext(op: op, operands: types, attributes: attributes))
        } catch let error as MartletError {
            throw error.adding("path", path)
        }
        return insert(
            op, operands, attributes, results: results, path: path, before: successor)
    }

    /// Adds a node with given result types (sources, whose type nothing implies).
    @discardableResult
    public mutating func insert(
        _ op: String, _ operands: [ValueID?], _ attributes: [String: AttributeValue],
        results: [TensorType], path: String, before successor: NodeID? = nil
    ) -> [ValueID] {
        let id = NodeID(number: nextNumber)
        nextNumber += 1
        table[id] = Node(
            id: id, op: op, operands: operands, attributes: attributes, results: results, path: path
        )
        if let successor, let index = order.firstIndex(of: successor) {
            order.insert(id, at: index)
        } else {
            order.append(id)
        }
        return results.indices.map { ValueID(node: id, result: $0) }
    }

    /// Types that a node's results would have under other attributes, its operands being what they are.
    ///
    /// - Throws: `MartletError` if the op does not accept them.
    package func impliedResults(
        of node: Node, attributes: [String: AttributeValue]
    ) throws -> [TensorType] {
        try ops.definition(of: node.op).infer(
            OpContext(
                op: node.op, operands: node.operands.map { $0.flatMap(type(of:)) },
                attributes: attributes))
    }

    /// Changes a node in place.
    public mutating func update(_ id: NodeID, _ change: (inout Node) -> Void) {
        guard var node = table[id] else { return }
        change(&node)
        table[id] = node
    }

    /// Makes every reader of `old`, outputs included, read `new`.
    public mutating func replaceUses(of old: ValueID, with new: ValueID) {
        for id in order {
            guard var node = table[id], node.operands.contains(old) else { continue }
            node.operands = node.operands.map { $0 == old ? new : $0 }
            table[id] = node
        }
        for index in outputs.indices where outputs[index].value == old {
            outputs[index].value = new
        }
    }

    /// Removes nodes; nothing may read them any more.
    public mutating func remove(_ ids: Set<NodeID>) {
        order.removeAll { ids.contains($0) }
        for id in ids { table[id] = nil }
    }

    /// Moves nodes so that operands precede users, keeping the present order where it can.
    ///
    /// - Throws: `MartletError` `.internalError` if nodes read each other in a circle.
    public mutating func sort() throws {
        var sorted: [NodeID] = []
        var state: [NodeID: Bool] = [:]  // false: being visited, true: placed
        for root in order {
            var stack = [(root, false)]
            while let (id, expanded) = stack.popLast() {
                if expanded {
                    state[id] = true
                    sorted.append(id)
                    continue
                }
                if let done = state[id] {
                    guard done else {
                        throw MartletError(
                            .internalError, "graph \(name) has a cycle at node \(id.number)")
                    }
                    continue
                }
                state[id] = false
                stack.append((id, true))
                for operand in (table[id]?.operands ?? []).reversed() {
                    if let operand, state[operand.node] != true {
                        stack.append((operand.node, false))
                    }
                }
            }
        }
        order = sorted
    }

    /// How many nodes of each op there are.
    public var opCounts: [String: Int] {
        nodes.reduce(into: [:]) { $0[$1.op, default: 0] += 1 }
    }
}
