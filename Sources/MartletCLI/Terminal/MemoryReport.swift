// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletEngineFile

/// What a plan will take of memory, before anything is built.
struct MemoryReport {
    /// Tokens of the step that `activations` are for.
    static let tokens = 512
    private let plan: Plan
    private let weights: Int
    private let activations: Int
    private let kvPerToken: Int

    /// Adds up weights, activations of a step and keys and values of a token.
    init(_ plan: Plan, requests: Int = 8) {
        let tokens = Self.tokens
        let values = Dimension.Values(
            tokens: tokens, requests: requests, logitRows: requests, context: 0)
        var slots = [Int](repeating: 0, count: plan.slotCount)
        for buffer in plan.buffers where slots.indices.contains(buffer.slot) {
            let bytes = (buffer.rows.evaluate(values) ?? 0) * buffer.rowBytes
            slots[buffer.slot] = max(slots[buffer.slot], bytes)
        }
        let parameters = plan.parameters.reduce(0.0) { total, parameter in
            let count = Double(parameter.shape.reduce(1, *))
            let bits: Double
            if let scheme = QuantizationScheme(parameter.format) {
                bits = scheme.bitsPerWeight(inputs: parameter.shape.last ?? 1)
            } else {
                bits = Double(8 * (DType(rawValue: parameter.format)?.byteCount ?? 4))
            }
            return total + count * bits / 8
        }
        self.plan = plan
        weights = Int(parameters)
        activations = slots.reduce(0, +)
        kvPerToken = plan.kvGroups.reduce(0) { $0 + $1.bytesPerToken }
    }

    /// One line for people.
    var text: String {
        "plan \(plan.entryPoint): \(plan.steps.count) steps, weights \(Format.bytes(weights)), "
            + "activations \(Format.bytes(activations)) at \(Self.tokens) tokens in "
            + "\(plan.slotCount) slots (\(plan.buffers.count) values), KV "
            + "\(Format.bytes(kvPerToken)) a token"
    }

    /// Columns of a table of plans.
    static let columns = [
        "entry point", "steps", "weight bytes", "activation bytes at \(tokens) tokens", "slots",
        "values", "KV bytes a token",
    ]

    /// The row of such a table.
    var row: [JSONValue] {
        [.string(plan.entryPoint)]
            + [
                plan.steps.count, weights, activations, plan.slotCount, plan.buffers.count,
                kvPerToken,
            ].map { .int($0) }
    }
}
