// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
package import MartletCore

extension CPUCatalog {
    package func packedByteCount(layout: String, format: ElementFormat, shape: [Int]) -> Int? {
        if layout == VectorLayout.name {
            guard let count = TensorData.elementCount(shape), let type = format.dtype else {
                return nil
            }
            return count * type.byteCount
        }
        guard var weight = try? PanelLayout.describe(layout, format, shape) else { return nil }
        return martlet_weight_byte_count(&weight)
    }

    package func packedRowUnit(layout: String) -> Int? {
        layout == VectorLayout.name ? nil : PanelLayout.rowCount
    }

    package func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
        switch weight {
        case .plain(let tensor):
            if layout == VectorLayout.name { return tensor.bytes }
            return try packPlain(tensor, layout)
        case .quantized(let tensor): return try packQuantized(tensor, layout)
        }
    }

    package func unpack(
        _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
    ) throws -> WeightValue {
        if layout == VectorLayout.name, let type = format.dtype {
            return .plain(try TensorData(dtype: type, shape: shape, bytes: bytes))
        }
        var weight = try described(layout, format, shape, code: .corrupt)
        guard bytes.count == martlet_weight_byte_count(&weight) else {
            throw MartletError(
                .corrupt,
                "\(bytes.count) bytes do not hold shape \(shape) in layout '\(layout)', which takes \(martlet_weight_byte_count(&weight))"
            )
        }
        weight.data = bytes.unsafeBaseAddress
        let described = WeightDescription(weight)
        return try withExtendedLifetime(bytes) {
            switch format {
            case .plain(let type):
                let view = ByteView(count: shape[0] * shape[1] * type.byteCount) { target in
                    let base = SharedPointer(target.baseAddress)
                    described.overPanels { weight, panels in
                        martlet_unpack_plain(
                            weight, base.pointer, shape[1], panels.lowerBound, panels.upperBound)
                    }
                }
                return .plain(try TensorData(dtype: type, shape: shape, bytes: view))
            case .weight(let scheme):
                return .quantized(try unpackQuantized(described, scheme, shape))
            default: throw MartletError(.corrupt, "\(format) is no weight format")
            }
        }
    }

    private func described(
        _ layout: String, _ format: ElementFormat, _ shape: [Int], code: MartletError.Code
    ) throws -> martlet_weight {
        do {
            return try PanelLayout.describe(layout, format, shape)
        } catch let refusal as Refusal {
            throw MartletError(code, refusal.reason)
        }
    }

    private func packPlain(_ tensor: TensorData, _ layout: String) throws -> ByteView {
        var weight = try described(layout, .plain(tensor.dtype), tensor.shape, code: .unsupported)
        let described = WeightDescription(weight)
        return withExtendedLifetime(tensor.bytes) {
            let source = SharedPointer(
                UnsafeMutableRawPointer(mutating: tensor.bytes.unsafeBaseAddress))
            return ByteView(count: martlet_weight_byte_count(&weight)) { target in
                let base = SharedPointer(target.baseAddress)
                described.overPanels { weight, panels in
                    martlet_pack_plain(
                        weight, source.pointer, tensor.shape[1], base.pointer, panels.lowerBound,
                        panels.upperBound)
                }
            }
        }
    }

    private func packQuantized(_ tensor: QuantizedTensor, _ layout: String) throws -> ByteView {
        if tensor.inputOrder != nil {
            throw MartletError(
                .unsupported, "layout '\(layout)' cannot hold a weight with an input order (g_idx)",
                mend: "Permute its inputs, or dequantize it")
        }
        var weight = try described(layout, .weight(tensor.scheme), tensor.shape, code: .unsupported)
        let described = WeightDescription(weight)
        func address(_ view: ByteView) -> UnsafeMutableRawPointer {
            UnsafeMutableRawPointer(mutating: view.unsafeBaseAddress)
        }
        return withExtendedLifetime(tensor) {
            let parts = CanonicalParts(
                codes: address(tensor.codes), scales: address(tensor.scales),
                zeros: tensor.scheme.zero == .none ? nil : address(tensor.zeros),
                stride: scaleStride(tensor.scheme, inputs: tensor.inputCount))
            return ByteView(count: martlet_weight_byte_count(&weight)) { target in
                let base = SharedPointer(target.baseAddress)
                described.overPanels { weight, panels in
                    var source = parts.canonical
                    martlet_pack_quantized(
                        weight, &source, base.pointer, panels.lowerBound, panels.upperBound)
                }
            }
        }
    }

    private func unpackQuantized(
        _ described: WeightDescription, _ scheme: QuantizationScheme, _ shape: [Int]
    ) throws -> QuantizedTensor {
        let (rows, inputs) = (shape[0], shape[1])
        let codeBytes = rows * (scheme.bits == 4 ? (inputs + 1) / 2 : inputs)
        let scaleRows = scheme.group == .tensor ? 1 : rows
        let groups = scaleRows * scheme.groupCount(inputs: inputs)
        let zeroBytes =
            switch scheme.zero {
            case .none: 0
            case .integer: groups
            case .floatMinimum: groups * scheme.scaleType.byteCount
            }
        var scales = ByteView()
        var zeros = ByteView()
        let codes = ByteView(count: codeBytes) { codes in
            scales = ByteView(count: groups * scheme.scaleType.byteCount) { scales in
                zeros = ByteView(count: zeroBytes) { zeros in
                    let parts = CanonicalParts(
                        codes: codes.baseAddress, scales: scales.baseAddress,
                        zeros: zeroBytes == 0 ? nil : zeros.baseAddress,
                        stride: scaleStride(scheme, inputs: inputs))
                    // Rows share one scale per tensor: threads would write it at once.
                    described.overPanels(parallel: scheme.group != .tensor) { weight, panels in
                        var target = parts.canonical
                        martlet_unpack_quantized(
                            weight, &target, panels.lowerBound, panels.upperBound)
                    }
                }
            }
        }
        return try QuantizedTensor(
            scheme: scheme, shape: shape, codes: codes, scales: scales, zeros: zeros)
    }

    private func scaleStride(_ scheme: QuantizationScheme, inputs: Int) -> Int {
        scheme.group == .tensor ? 0 : scheme.groupCount(inputs: inputs)
    }
}

/// An address handed to several threads, which write disjoint parts of what it points to.
struct SharedPointer: @unchecked Sendable {
    let pointer: UnsafeMutableRawPointer?
    init(_ pointer: UnsafeMutableRawPointer?) { self.pointer = pointer }
}

/// Addresses of a canonical weight's parts; threads touch disjoint rows.
private struct CanonicalParts: @unchecked Sendable {
    let codes: UnsafeMutableRawPointer?
    let scales: UnsafeMutableRawPointer?
    let zeros: UnsafeMutableRawPointer?
    let stride: Int

    var canonical: martlet_canonical {
        martlet_canonical(
            codes: codes?.assumingMemoryBound(to: UInt8.self), scales: scales, zeros: zeros,
            scale_row_stride: stride)
    }
}

/// A described weight that threads read together; immutable.
private struct WeightDescription: @unchecked Sendable {
    let weight: martlet_weight
    init(_ weight: martlet_weight) { self.weight = weight }

    /// Calls the closure for all panels, shared over the cores where the work is worth it.
    func overPanels(
        parallel: Bool = true, _ body: @Sendable (UnsafePointer<martlet_weight>, Range<Int>) -> Void
    ) {
        var copy = weight
        let panels = martlet_weight_panel_count(&copy)
        let large = martlet_weight_byte_count(&copy) > 1 << 20
        guard parallel, large else {
            body(&copy, 0..<panels)
            return
        }
        let shared = self
        ThreadTeam.packing.run { thread, count in
            var copy = shared.weight
            let range = Worker(index: thread, count: count).share(of: panels)
            if !range.isEmpty { body(&copy, range) }
        }
    }
}
