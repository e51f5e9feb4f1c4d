// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile
import MartletGraph

/// Makes a plan of a small graph without the compiler: every value has a slot of its own.
struct PlanSketch {
    /// The plan.
    private(set) var plan: Plan
    /// Packed weights by name.
    private(set) var parameters: ParameterBytes = [:]
    /// Index of the plan step that computes the op under test.
    private(set) var testedStep = 0

    private let catalog: any KernelCatalog
    private let subject: ConformanceCase.Subject
    private var operands: [ValueID: PlanOperand] = [:]

    /// Why no plan can be made.
    struct Refusal: Error { let reason: String }

    /// Families that accept the node of an op, or the reasons of those that do not.
    static func families(
        _ op: String, _ subject: ConformanceCase.Subject, _ catalog: any KernelCatalog
    ) throws -> (accepted: [KernelFamily], reasons: [String]) {
        guard let node = subject.graph.nodes.last(where: { $0.op == op }) else {
            throw MartletError(.internalError, "the case has no op \(op)")
        }
        let query = query(node, subject.graph)
        var accepted: [KernelFamily] = []
        var reasons: [String] = []
        for family in catalog.families where family.op == op {
            switch family.evaluate(query) {
            case .accepted: accepted.append(family)
            case .refused(let reason): reasons.append("\(family.name): \(reason)")
            }
        }
        return (accepted, reasons.isEmpty ? ["no family computes \(op)"] : reasons)
    }

    /// Makes a plan that computes the op under test by a certain family.
    ///
    /// - Throws: `Refusal` if another node has no kernel.
    init(
        _ subject: ConformanceCase.Subject, op: String, family: KernelFamily,
        catalog: any KernelCatalog
    ) throws {
        self.subject = subject
        self.catalog = catalog
        plan = Plan(
            entryPoint: subject.graph.name, target: catalog.target, buffers: [], slotCount: 0,
            parameters: [], kvGroups: subject.graph.kvGroups, steps: [], outputs: [])
        let tested = subject.graph.nodes.last { $0.op == op }?.id
        for node in subject.graph.nodes {
            switch node.op {
            case "input":
                operands[node.value()] = .input(node.attributes["name"]?.string ?? "")
            case "parameter", "constant", "cache": break
            case "split": try split(node)
            default: try step(node, family: node.id == tested ? family : nil)
            }
            if node.id == tested { testedStep = plan.steps.count - 1 }
        }
        plan.outputs = subject.graph.outputs.compactMap { output in
            operands[output.value].map { PlanOutput(name: output.name, operand: $0) }
        }
    }

    /// The plan with one variant of the tested step only.
    func plan(with variant: PlanVariant) -> Plan {
        var copy = plan
        copy.steps[testedStep].variants = [PlanVariant(kernel: variant.kernel)]
        return copy
    }

    private static func query(_ node: Node, _ graph: Graph) -> KernelQuery {
        KernelQuery(
            op: node.op, attributes: node.attributes,
            operands: node.operands.map { $0.flatMap { graph.type(of: $0) } },
            isParameter: node.operands.map { operand in
                let op = operand.flatMap { graph.producer(of: $0) }?.op
                return op == "parameter" || op == "constant"
            }, results: node.results)
    }

    private mutating func split(_ node: Node) throws {
        guard let source = node.operands[0],
            case .buffer(let buffer, var start, _)? = operands[source]
        else { throw Refusal(reason: "splits a value without a buffer") }
        for index in node.results.indices {
            let columns = node.results[index].columns ?? 0
            operands[node.value(index)] = .buffer(buffer, offset: start, columns: columns)
            start += columns
        }
    }

    private mutating func step(_ node: Node, family: KernelFamily?) throws {
        let query = Self.query(node, subject.graph)
        var reason = "no family computes \(node.op)"
        for candidate in family.map({ [$0] }) ?? catalog.families where candidate.op == node.op {
            switch candidate.evaluate(query) {
            case .refused(let text): reason = text
            case .accepted(_, let layouts):
                var inputs: [PlanOperand] = []
                for (index, operand) in node.operands.enumerated() {
                    let layout = layouts.indices.contains(index) ? layouts[index] : nil
                    inputs.append(try input(operand, layout: layout))
                }
                let results = try node.results.indices.map { try buffer(node, $0) }
                plan.steps.append(
                    PlanStep(
                        op: node.op, family: candidate.name, variants: candidate.variants,
                        operands: inputs, results: results, attributes: node.attributes,
                        path: node.path))
                return
            }
        }
        throw Refusal(reason: "\(node.op): \(reason)")
    }

    private mutating func input(_ operand: ValueID?, layout: String?) throws -> PlanOperand {
        guard let operand, let producer = subject.graph.producer(of: operand) else { return .none }
        guard producer.op == "parameter" || producer.op == "constant" else {
            return operands[operand] ?? .none
        }
        let name = producer.attributes["name"]?.string ?? ""
        guard let value = subject.weights[name] else {
            throw MartletError(.internalError, "the case has no weight '\(name)'")
        }
        let layout = layout ?? "rows"
        let format = producer.results[0].format
        let stored = PlanParameter(
            name: name, layout: layout, format: format.description, shape: value.shape)
        if let index = plan.parameters.firstIndex(of: stored) { return .parameter(index) }
        let packed = try catalog.pack(value, layout: layout)
        let unpacked = try catalog.unpack(
            packed, layout: layout, format: format, shape: value.shape)
        guard isSame(unpacked, value) else {
            throw MartletError(
                .internalError, "layout \(layout) does not give weight \(format) back")
        }
        parameters[stored] = packed
        plan.parameters.append(stored)
        return .parameter(plan.parameters.count - 1)
    }

    private func isSame(_ a: WeightValue, _ b: WeightValue) -> Bool {
        switch (a, b) {
        case (.plain(let a), .plain(let b)):
            a.dtype == b.dtype && a.shape == b.shape && a.bytes.hasSameBytes(as: b.bytes)
        case (.quantized(let a), .quantized(let b)):
            a.scheme == b.scheme && a.shape == b.shape && a.codes.hasSameBytes(as: b.codes)
                && a.scales.hasSameBytes(as: b.scales) && a.zeros.hasSameBytes(as: b.zeros)
        default: false
        }
    }

    private mutating func buffer(_ node: Node, _ index: Int) throws -> PlanOperand {
        let type = node.results[index]
        if type.format == .cache { return .none }
        let columns = type.rank > 1 ? type.columns ?? 0 : 1
        guard let rowBytes = catalog.rowBytes(type.format, columns: columns) else {
            throw Refusal(reason: "\(catalog.target) cannot store rows \(type)")
        }
        let operand = PlanOperand.buffer(plan.buffers.count, offset: 0, columns: columns)
        plan.buffers.append(
            PlanBuffer(
                rows: type.shape.first ?? 1, columns: columns, format: type.format.description,
                rowBytes: rowBytes, slot: plan.slotCount))
        plan.slotCount += 1
        operands[node.value(index)] = operand
        return operand
    }
}
