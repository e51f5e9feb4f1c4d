// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A compiled entry point: what an executor needs to run steps, and nothing else.
///
/// Buffers are sized from T, B, O and L when the plan is loaded; steps run in order.
package struct Plan: Sendable, Hashable, Codable {
    /// Entry point this plan computes, such as `decode` or `embed`.
    package var entryPoint: String
    /// Device the kernels were chosen for, such as `cpu`.
    package var target: String
    /// Position planes per token (1, or 3 for multi-axis rotary positions).
    package var positionPlanes: Int
    /// Intermediate values.
    package var buffers: [PlanBuffer]
    /// Number of memory slots that buffers share.
    package var slotCount: Int
    /// Weights and constants.
    package var parameters: [PlanParameter]
    /// KV groups that steps read and write.
    package var kvGroups: [KVGroup]
    /// Work, in order.
    package var steps: [PlanStep]
    /// Named results that can be read back after a step.
    package var outputs: [PlanOutput]

    /// Assembles a plan; see the properties.
    package init(
        entryPoint: String, target: String, positionPlanes: Int = 1, buffers: [PlanBuffer],
        slotCount: Int, parameters: [PlanParameter], kvGroups: [KVGroup], steps: [PlanStep],
        outputs: [PlanOutput]
    ) {
        self.entryPoint = entryPoint
        self.target = target
        self.positionPlanes = positionPlanes
        self.buffers = buffers
        self.slotCount = slotCount
        self.parameters = parameters
        self.kvGroups = kvGroups
        self.steps = steps
        self.outputs = outputs
    }
}

/// An intermediate value: `rows` rows of `rowBytes` bytes, in a slot shared with values of other lifetimes.
package struct PlanBuffer: Sendable, Hashable, Codable {
    /// Rows, linear in T, B and O.
    package var rows: Dimension
    /// Elements of a row.
    package var columns: Int
    /// Format of the elements: a dtype name or an activation format name.
    package var format: String
    /// Bytes of a row in that format, as the target lays it out.
    package var rowBytes: Int
    /// Memory slot.
    package var slot: Int

    /// Describes a buffer; see the properties.
    package init(rows: Dimension, columns: Int, format: String, rowBytes: Int, slot: Int) {
        self.rows = rows
        self.columns = columns
        self.format = format
        self.rowBytes = rowBytes
        self.slot = slot
    }
}

/// A weight or constant in the layout that its kernels want.
///
/// All four properties together are its identity: plans of several entry points share what is equal,
/// and a weight that two kernels want in two layouts is two parameters of one name.
package struct PlanParameter: Sendable, Hashable, Codable {
    /// The layout of elements as they are, row after row: what operands have that no kernel wants packed.
    package static let rowMajor = "rows"

    /// Name of the weight in the graph.
    package var name: String
    /// Layout with its parameters, such as `panel16.u4.g64`; an invertible permutation.
    package var layout: String
    /// Format of the values: a dtype name or a scheme.
    package var format: String
    /// Logical sizes.
    package var shape: [Int]

    /// Describes a parameter; see the properties.
    package init(name: String, layout: String, format: String, shape: [Int]) {
        self.name = name
        self.layout = layout
        self.format = format
        self.shape = shape
    }
}

extension PlanParameter: CustomStringConvertible {
    /// The form used in messages, such as `'head.weight' f32 [96, 64] in panel16.f32`.
    package var description: String { "'\(name)' \(format) \(shape) in \(layout)" }
}

/// Bytes of parameters, each in its layout.
package typealias ParameterBytes = [PlanParameter: ByteView]

/// Where a step reads or writes.
package enum PlanOperand: Sendable, Hashable, Codable {
    /// Columns `offset ..< offset + columns` of a buffer's rows.
    case buffer(Int, offset: Int, columns: Int)
    /// A parameter by index.
    case parameter(Int)
    /// A field of the step record, such as `tokens` or `positions`.
    case input(String)
    /// Nothing: an optional operand that is absent.
    case none
}

/// One kernel family invocation.
package struct PlanStep: Sendable, Hashable, Codable {
    /// Op computed.
    package var op: String
    /// Kernel family: one packed layout, variants for ranges of T.
    package var family: String
    /// Variants in order; the executor takes the first whose limit holds the step's row count.
    package var variants: [PlanVariant]
    /// Inputs, in the op's order.
    package var operands: [PlanOperand]
    /// Results, in the op's order.
    package var results: [PlanOperand]
    /// The op's attributes.
    package var attributes: [String: AttributeValue]
    /// Module path that made the op.
    package var path: String

    /// Describes a step; see the properties.
    package init(
        op: String, family: String, variants: [PlanVariant], operands: [PlanOperand],
        results: [PlanOperand], attributes: [String: AttributeValue], path: String
    ) {
        self.op = op
        self.family = family
        self.variants = variants
        self.operands = operands
        self.results = results
        self.attributes = attributes
        self.path = path
    }
}

/// A kernel of a family with the row counts it is meant for.
package struct PlanVariant: Sendable, Hashable, Codable {
    /// Kernel name.
    package var kernel: String
    /// Largest row count it is chosen for; nil for no limit.
    package var maxRows: Int?

    /// Names a kernel and its limit.
    package init(kernel: String, maxRows: Int? = nil) {
        self.kernel = kernel
        self.maxRows = maxRows
    }
}

extension Plan {
    /// Results that a step returns as rows: all but sampled tokens, which it returns beside them.
    package var rowOutputs: [PlanOutput] {
        let sampled = Set(steps.filter { $0.op == "sample" }.flatMap(\.results))
        return outputs.filter { !sampled.contains($0.operand) }
    }
}

/// A named result of an entry point.
package struct PlanOutput: Sendable, Hashable, Codable {
    /// Name, such as `logits` or `embedding`.
    package var name: String
    /// Where it lies after the last step.
    package var operand: PlanOperand

    /// Names a result.
    package init(name: String, operand: PlanOperand) {
        self.name = name
        self.operand = operand
    }
}
