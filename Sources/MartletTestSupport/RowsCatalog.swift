// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCPU
package import MartletCore
import MartletEngineFile

/// A second target for tests: another name, weights row by row, no fused ops, whole operands only.
///
/// What it computes it leaves to the CPU's families; no executor runs its plans.
package struct RowsCatalog: KernelCatalog {
    private static let base = CPUCatalog()
    /// Ops that it has no kernels for.
    package static let missingOps: Set<String> = ["addNorm", "gatedActivation", "cachedAttention"]
    private static let prefix = "rows."

    /// The catalog.
    package init() {}

    package var target: String { "test-rows" }
    package var families: [KernelFamily] {
        Self.base.families.filter { !Self.missingOps.contains($0.op) }.map { family in
            var own = family
            own.acceptsStridedOperands = false
            own.evaluate = { query in
                guard case .accepted(let cost, let layouts) = family.evaluate(query) else {
                    return family.evaluate(query)
                }
                return .accepted(
                    cost: cost,
                    layouts: zip(layouts, query.operands).map { layout, type in
                        guard let layout, let type, layout != PlanParameter.rowMajor else {
                            return layout
                        }
                        return Self.prefix + type.format.description
                    })
            }
            return own
        }
    }
    package var assumedBytesPerSecond: Double { Self.base.assumedBytesPerSecond }
    package var kvBlockSize: Int { 2 * Self.base.kvBlockSize }
    package var kvTypes: [DType] { Self.base.kvTypes }
    package var activationTypes: [DType] { Self.base.activationTypes }
    package var defaultActivations: ActivationFormat? { Self.base.defaultActivations }

    package func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        Self.base.rowBytes(format, columns: columns)
    }

    package func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
        if layout == PlanParameter.rowMajor { return try Self.base.pack(weight, layout: layout) }
        switch weight {
        case .plain(let tensor):
            try Self.check(layout, .plain(tensor.dtype))
            return tensor.bytes
        case .quantized(let tensor):
            try Self.check(layout, .weight(tensor.scheme))
            return ByteView(joining: [tensor.scales, tensor.zeros, tensor.codes])
        }
    }

    package func unpack(
        _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
    ) throws -> WeightValue {
        if layout == PlanParameter.rowMajor {
            return try Self.base.unpack(bytes, layout: layout, format: format, shape: shape)
        }
        try Self.check(layout, format)
        guard case .weight(let scheme) = format else {
            return .plain(
                try TensorData(dtype: format.dtype ?? .f32, shape: shape, bytes: bytes))
        }
        guard shape.count == 2 else {
            throw MartletError(.corrupt, "layout '\(layout)' holds matrices, not shape \(shape)")
        }
        let groups =
            (scheme.group == .tensor ? 1 : shape[0]) * scheme.groupCount(inputs: shape[1])
        let scaleBytes = groups * scheme.scaleType.byteCount
        let zeroBytes =
            switch scheme.zero {
            case .none: 0
            case .integer: groups
            case .floatMinimum: scaleBytes
            }
        func part(_ start: Int, _ count: Int) -> ByteView {
            bytes.slice(start, count: count) ?? ByteView()
        }
        return .quantized(
            try QuantizedTensor(
                scheme: scheme, shape: shape,
                codes: part(scaleBytes + zeroBytes, bytes.count - scaleBytes - zeroBytes),
                scales: part(0, scaleBytes), zeros: part(scaleBytes, zeroBytes)))
    }

    private static func check(_ layout: String, _ format: ElementFormat) throws {
        guard layout == prefix + format.description else {
            throw MartletError(.corrupt, "layout '\(layout)' does not hold \(format)")
        }
    }
}
