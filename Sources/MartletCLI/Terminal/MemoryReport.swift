// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletEngineFile

/// What a plan will take of memory, before anything is built.
enum MemoryReport {
    /// Weights, activations per token and KV per token.
    static func text(_ plan: Plan, tokens: Int = 512, requests: Int = 8) -> String {
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
        let kv = plan.kvGroups.reduce(0) { $0 + $1.bytesPerToken }
        return "plan \(plan.entryPoint): \(plan.steps.count) steps, weights "
            + "\(Format.bytes(Int(parameters))), activations \(Format.bytes(slots.reduce(0, +))) at "
            + "\(tokens) tokens in \(plan.slotCount) slots (\(plan.buffers.count) values), KV "
            + "\(Format.bytes(kv)) a token"
    }
}
