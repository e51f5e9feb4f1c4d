// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Attention over the paged cache with rotation and cache write, on the tensor cores: what the kernels of
/// decode and prefill steps have in common.
struct CachedAttention {
    let shape: AttentionShape
    let heads: Int
    let window: Int
    let softCap: Float
    let scale: Float
    let rotation: DeviceRotation?
    let slopes: DeviceVector?
    let views: [DeviceRows]

    /// Fails where the kernel does not fit.
    static func check(headDim: Int, group: Int, type: DType?) throws {
        guard headDim % 16 == 0, (16...256).contains(headDim) else {
            throw Refusal("heads of \(headDim) are no multiples of 16 up to 256")
        }
        guard (1...128).contains(group) else {
            throw Refusal("\(group) heads share a kv head, up to 128 are computed")
        }
        guard type == .f16 || type == .bf16 else {
            throw Refusal("the tensor cores' kernels take f16 and bf16")
        }
    }

    init(_ binder: CUDABinder, _ shape: AttentionShape) throws {
        self.shape = shape
        heads = try binder.int("headCount", in: 1...1 << 16)
        window = try binder.int("window", in: 0...Int(Int32.max), default: 0)
        softCap = Float(try binder.float("softCap", default: 0))
        scale = Float(try binder.float("scale"))
        rotation = try DeviceRotation(binder, frequencies: 4, headDim: shape.group.headDim)
        slopes = try binder.vector(5, count: heads)
        views = [try binder.rows(0), try binder.rows(1), try binder.rows(2), try binder.result(0)]
        try Self.check(
            headDim: shape.group.headDim, group: heads / shape.group.kvHeadCount,
            type: views[0].type)
        try binder.require(slopes.map { $0.type == .f32 } ?? true, "slopes are f32")
        // Loads of 16 bytes.
        for view in views {
            try binder.require(
                view.address % 16 == 0 && view.stride % 8 == 0, "rows are not aligned to 16 bytes")
        }
    }

    /// Whether pairs are rotated by eights, as the kernels do.
    var isRotationWhole: Bool { rotation.map { $0.table.pairCount % 8 == 0 } ?? true }
    /// Query heads of a kv head.
    var group: Int { heads / shape.group.kvHeadCount }
}
