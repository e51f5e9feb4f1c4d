// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// Layout `rows`: plain numbers as they are; of coded weights codes, scales and zeros, each from a
/// multiple of 256 bytes on.
enum RowLayout {
    static let name = "rows"

    /// Where the parts of a coded weight begin.
    struct Parts {
        let codes: Int
        let scales: Range<Int>
        let zeros: Range<Int>
        var byteCount: Int { zeros.upperBound }
    }

    /// Places the parts.
    ///
    /// - Throws: `Refusal` for sizes out of range.
    static func parts(_ scheme: QuantizationScheme, _ shape: [Int]) throws -> Parts {
        guard shape.count == 2, shape.allSatisfy({ $0 > 0 && $0 < 1 << 28 }) else {
            throw Refusal("layout '\(name)' holds coded matrices, not shape \(shape)")
        }
        guard scheme.bits == 4 || scheme.bits == 8, scheme.scaleType.isActivation else {
            throw Refusal("weights of \(scheme) have no kernel")
        }
        let (rows, inputs) = (shape[0], shape[1])
        let codes = rows * (scheme.bits == 4 ? (inputs + 1) / 2 : inputs)
        let groups = (scheme.group == .tensor ? 1 : rows) * scheme.groupCount(inputs: inputs)
        let scales = (codes + 255) / 256 * 256
        let scaleEnd = scales + groups * scheme.scaleType.byteCount
        let zeros = (scaleEnd + 255) / 256 * 256
        let zeroBytes =
            switch scheme.zero {
            case .none: 0
            case .integer: groups
            case .floatMinimum: groups * scheme.scaleType.byteCount
            }
        return Parts(codes: codes, scales: scales..<scaleEnd, zeros: zeros..<zeros + zeroBytes)
    }

    static func pack(_ weight: WeightValue, layout: String) throws -> ByteView {
        guard layout == name else {
            throw MartletError(.unsupported, "there is no layout '\(layout)'")
        }
        switch weight {
        case .plain(let tensor): return tensor.bytes
        case .quantized(let tensor):
            if tensor.inputOrder != nil {
                throw MartletError(
                    .unsupported,
                    "layout '\(layout)' cannot hold a weight with an input order (g_idx)",
                    mend: "Permute its inputs, or dequantize it")
            }
            let parts = try mapped(.unsupported) { try Self.parts(tensor.scheme, tensor.shape) }
            return ByteView(count: parts.byteCount) { target in
                func copy(_ view: ByteView, to start: Int) {
                    view.withUnsafeBytes { bytes in
                        UnsafeMutableRawBufferPointer(rebasing: target[start...])
                            .copyMemory(from: bytes)
                    }
                }
                copy(tensor.codes, to: 0)
                copy(tensor.scales, to: parts.scales.lowerBound)
                if !parts.zeros.isEmpty { copy(tensor.zeros, to: parts.zeros.lowerBound) }
            }
        }
    }

    static func unpack(
        _ bytes: ByteView, layout: String, format: ElementFormat, shape: [Int]
    ) throws -> WeightValue {
        guard layout == name else {
            throw MartletError(.corrupt, "there is no layout '\(layout)'")
        }
        switch format {
        case .plain(let type):
            return .plain(try TensorData(dtype: type, shape: shape, bytes: bytes))
        case .weight(let scheme):
            let parts = try mapped(.corrupt) { try Self.parts(scheme, shape) }
            guard bytes.count == parts.byteCount,
                let codes = bytes.slice(0, count: parts.codes),
                let scales = bytes.slice(parts.scales.lowerBound, count: parts.scales.count),
                let zeros = bytes.slice(parts.zeros.lowerBound, count: parts.zeros.count)
            else {
                throw MartletError(
                    .corrupt,
                    "\(bytes.count) bytes do not hold \(scheme) of shape \(shape), which takes \(parts.byteCount)"
                )
            }
            return .quantized(
                try QuantizedTensor(
                    scheme: scheme, shape: shape, codes: codes, scales: scales, zeros: zeros))
        default: throw MartletError(.corrupt, "\(format) is no weight format")
        }
    }

    private static func mapped<Result>(
        _ code: MartletError.Code, _ body: () throws -> Result
    ) throws -> Result {
        do {
            return try body()
        } catch let refusal as Refusal {
            throw MartletError(code, refusal.reason)
        }
    }
}
