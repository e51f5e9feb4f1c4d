// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

extension CUDAFamily {
    /// `cachedAttention` on the tensor cores where every request has one token; other steps by the plain kernels.
    static let decodeAttention = CUDAFamily(
        "cachedAttention_decode", op: "cachedAttention",
        decide: { query in
            let (q, result) = (try query.operand(0), try query.result())
            guard let headDim = query.attributes["headDim"]?.int,
                let heads = query.attributes["headCount"]?.int,
                let kvHeads = query.attributes["kvHeadCount"]?.int, kvHeads > 0
            else { throw Refusal("heads and their sizes are not given") }
            try CachedAttention.check(
                headDim: headDim, group: heads / kvHeads, type: q.format.dtype)
            guard result.format == q.format else {
                throw Refusal("results in \(result.format) are not made")
            }
            guard query.attributes["causal"]?.bool != false else {
                throw Refusal("rows see no later ones")
            }
            var layouts = [String?](repeating: nil, count: query.operands.count)
            if query.optional(4) != nil { layouts[4] = try query.vector(4, count: nil) }
            if let slopes = query.optional(5) {
                guard slopes.format == .plain(.f32) else { throw Refusal("slopes are f32") }
                layouts[5] = try query.vector(5, count: heads)
            }
            var bytes = result.rows * (try query.rowBytes(result))
            for index in 0..<3 {
                let type = try query.operand(index)
                bytes = bytes + type.rows * (try query.rowBytes(type))
            }
            // Less than the plain family's, whose kernels it falls back to.
            let cost = KernelCost(
                bytes: bytes, operations: q.rows * (64 * (q.columns ?? 0)),
                operationsPerSecond: CUDACatalog.plainRate)
            return (cost, layouts)
        },
        bind: { binder in
            let shape = try AttentionShape(binder)
            let plain = try bindAttention(binder, slopes: 5, isFused: true)
            let kvType = shape.group.scheme.dtype
            guard kvType == .f16 || kvType == .bf16 else { return plain }
            let attention = try CachedAttention(binder, shape)
            guard attention.isRotationWhole else { return plain }
            let prefill = try attention.prefillLaunches(binder)
            // The kernels of decode share a request's keys by the size of the batch.
            if binder.memory.isDeterministic { return prefill ?? plain }
            let decode = try attention.decodeLaunches(binder)
            guard let prefill else {
                // One of the two: the counts say which.
                return decode.map { launch in launch.limited { $0.tokens == $0.singles } }
                    + plain.map { launch in launch.limited { $0.tokens != $0.singles } }
            }
            // Answers behind prompts, so that they run beside each other (decode/attention.cu).
            return prefill.map { launch in launch.limited { $0.tokens != $0.singles } } + decode
        })
}
