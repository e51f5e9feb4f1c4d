// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension FragmentLinear {
    /// The linear of a step with all that stands before and after it; nil if it is another op.
    init?(_ binder: CUDABinder) throws {
        let step = binder.planStep
        switch step.family {
        case "linear_mma16x16":
            try self.init(binder, weight: 1, x: binder.rows(0), y: binder.result(0))
            bias = try binder.vector(2, count: weight.outputs)
        case "linearAdd_mma16x16":
            let (added, y) = (try binder.rows(2), try binder.result(0))
            try binder.requireSame(added, y)
            try self.init(binder, weight: 1, x: binder.rows(0), y: y)
            residual = added
            bias = try binder.vector(3, count: weight.outputs)
        case "normLinear_mma16x16":
            _ = try binder.word("kind", of: ["rms"])
            try self.init(binder, weight: 2, x: binder.rows(0), y: binder.result(0))
            norm = try Self.norm(binder, x)
            bias = try binder.vector(3, count: weight.outputs)
        case "normGatedLinear_mma16x16":
            _ = try binder.word("norm", of: ["rms"])
            guard let gate = Self.gateNumber(step.attributes["kind"]) else {
                throw Refusal("gates are silu and geluTanh")
            }
            let y = try binder.result(0)
            try self.init(binder, weight: 2, x: binder.rows(0), y: y)
            try binder.require(
                y.columns * 2 == weight.outputs, "the result is not half of the weight")
            norm = try Self.norm(binder, x)
            self.gate = gate
        default: return nil
        }
    }

    /// How kernels count gates.
    static func gateNumber(_ kind: AttributeValue?) -> Int? {
        switch kind?.string {
        case "silu": 1
        case "geluTanh": 2
        default: nil
        }
    }

    private static func norm(
        _ binder: CUDABinder, _ x: DeviceRows
    ) throws -> (gamma: DeviceVector, epsilon: Float) {
        guard let gamma = try binder.vector(1, count: x.columns) else {
            throw Refusal("operand 1 is missing")
        }
        return (gamma, Float(try binder.float("epsilon")))
    }
}
