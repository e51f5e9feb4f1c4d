// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
package import MartletEngineFile
package import MartletGraph

/// A weight that the engine must hold: where it comes from and how it is packed.
package struct ParameterRequest: Sendable, Hashable {
    /// Name in the graph.
    package let name: String
    /// How its value comes from the checkpoint; nil for a constant of the graph.
    package let expression: WeightExpression?
    /// Format of the values.
    package let format: ElementFormat
    /// Sizes.
    package let shape: [Int]
    /// Layout.
    package let layout: String

    /// Describes a weight; see the properties.
    package init(
        name: String, expression: WeightExpression?, format: ElementFormat, shape: [Int],
        layout: String
    ) {
        self.name = name
        self.expression = expression
        self.format = format
        self.shape = shape
        self.layout = layout
    }

    /// What plans and engine call it.
    package var parameter: PlanParameter {
        PlanParameter(name: name, layout: layout, format: format.description, shape: shape)
    }
}

/// A plan with what is needed to fill it.
package struct EmittedPlan: Sendable {
    /// The graph as the target's kernels compute it: fused forms they lack are decomposed.
    package let graph: Graph
    /// The plan.
    package let plan: Plan
    /// Parameters in the plan's order.
    package let parameters: [ParameterRequest]
    /// Decisions, one per plan step.
    package let choices: [KernelChoice]
}

/// Turns a legal graph into a plan: views resolved, buffers assigned, kernels named.
struct PlanEmitter {
    private let graph: Graph
    private let selection: KernelSelection
    private let catalog: any KernelCatalog
    private var operands: [ValueID: PlanOperand] = [:]
    private var buffers: [PlanBuffer] = []
    private var lifetimes: [MemoryPlan.Lifetime] = []
    private var parameters: [ParameterRequest] = []
    private var parameterIndex: [ParameterRequest: Int] = [:]
    private var steps: [PlanStep] = []
    private var choices: [KernelChoice] = []

    private init(_ graph: Graph, _ catalog: any KernelCatalog) {
        self.graph = graph
        self.catalog = catalog
        selection = KernelSelection(catalog: catalog)
    }

    /// Emits a plan.
    ///
    /// - Throws: `MartletError` `.unsupported` if a node has no kernel or no buffer format.
    static func emit(_ graph: Graph, for catalog: any KernelCatalog) throws -> EmittedPlan {
        var emitter = PlanEmitter(graph, catalog)
        for node in graph.nodes { try emitter.emit(node) }
        return try emitter.finish()
    }

    private mutating func emit(_ node: Node) throws {
        switch node.op {
        case "input":
            operands[node.value()] = .input(node.attributes["name"]?.string ?? "")
        case "parameter", "constant", "cache": break
        case "split":
            // Columns of the split value; no work.
            guard let source = node.operands[0],
                case .buffer(let buffer, let offset, _)? = operands[source]
            else { throw failure(node, "splits a value that has no buffer") }
            var start = offset
            for index in node.results.indices {
                let columns = node.results[index].columns ?? 0
                operands[node.value(index)] = .buffer(buffer, offset: start, columns: columns)
                start += columns
            }
        default: try emitStep(node)
        }
    }

    private mutating func emitStep(_ node: Node) throws {
        let choice: KernelChoice
        switch selection.choose(for: node, in: graph) {
        case .success(let found): choice = found
        case .failure: throw failure(node, "has no kernel")
        }
        let index = steps.count
        var inputs: [PlanOperand] = []
        for (position, operand) in node.operands.enumerated() {
            let layout = position < choice.layouts.count ? choice.layouts[position] : nil
            inputs.append(try input(operand, layout: layout, step: index))
        }
        var results: [PlanOperand] = []
        for (position, type) in node.results.enumerated() {
            let operand = try newBuffer(type, node, step: index)
            operands[node.value(position)] = operand
            results.append(operand)
        }
        guard let family = selection.family(named: choice.family) else {
            throw failure(node, "has no kernel")
        }
        steps.append(
            PlanStep(
                op: node.op, family: choice.family, variants: family.variants, operands: inputs,
                results: results, attributes: node.attributes, path: node.path))
        choices.append(choice)
    }

    private mutating func input(
        _ operand: ValueID?, layout: String?, step: Int
    ) throws -> PlanOperand {
        guard let operand, let producer = graph.producer(of: operand) else { return .none }
        if producer.op == "parameter" || producer.op == "constant" {
            return .parameter(try parameter(producer, layout: layout ?? PlanParameter.rowMajor))
        }
        if case .buffer(let buffer, _, _)? = operands[operand] { lifetimes[buffer].last = step }
        return operands[operand] ?? .none
    }

    private mutating func parameter(_ node: Node, layout: String) throws -> Int {
        guard let shape = node.results[0].fixedShape, let name = node.attributes["name"]?.string
        else {
            throw failure(node, "has no fixed shape")
        }
        let request = ParameterRequest(
            name: name,
            expression: node.op == "constant" ? nil : try WeightExpression(parameter: node),
            format: node.results[0].format, shape: shape, layout: layout)
        if let known = parameterIndex[request] { return known }
        parameterIndex[request] = parameters.count
        parameters.append(request)
        return parameters.count - 1
    }

    private mutating func newBuffer(
        _ type: TensorType, _ node: Node, step: Int
    ) throws -> PlanOperand {
        if type.format == .cache { return .none }
        let columns = type.rank > 1 ? type.columns : 1
        let rows = type.rank > 0 ? type.shape[0] : 1
        guard type.rank <= 2, let columns,
            let rowBytes = catalog.rowBytes(type.format, columns: columns)
        else { throw failure(node, "has a result \(type) that \(catalog.target) cannot store") }
        buffers.append(
            PlanBuffer(
                rows: rows, columns: columns, format: type.format.description, rowBytes: rowBytes,
                slot: 0))
        lifetimes.append(.init(first: step, last: step))
        return .buffer(buffers.count - 1, offset: 0, columns: columns)
    }

    private mutating func finish() throws -> EmittedPlan {
        var outputs: [PlanOutput] = []
        for output in graph.outputs {
            guard let operand = operands[output.value] else {
                throw MartletError(
                    .unsupported, "output '\(output.name)' is not computed by a step")
            }
            if case .buffer(let buffer, _, _) = operand { lifetimes[buffer].last = steps.count }
            outputs.append(PlanOutput(name: output.name, operand: operand))
        }
        let (slots, slotCount) = MemoryPlan.assign(buffers, lifetimes)
        for (index, slot) in slots.enumerated() { buffers[index].slot = slot }
        let plan = Plan(
            entryPoint: graph.name, target: catalog.target, buffers: buffers, slotCount: slotCount,
            parameters: parameters.map(\.parameter), kvGroups: graph.kvGroups, steps: steps,
            outputs: outputs)
        return EmittedPlan(graph: graph, plan: plan, parameters: parameters, choices: choices)
    }

    private func failure(_ node: Node, _ message: String) -> MartletError {
        MartletError(.unsupported, "\(node.op) of '\(node.path)' \(message)")
    }
}
