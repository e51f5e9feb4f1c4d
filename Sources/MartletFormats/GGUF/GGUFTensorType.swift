// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Tensor storages of GGUF that Martlet reads; raw values are the file's type numbers.
enum GGUFTensorType: UInt32 {
    case f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8
    case i8 = 24, i16 = 25, i32 = 26, i64 = 27, f64 = 28, bf16 = 30

    /// Names of further types, for messages.
    static let names: [UInt32: String] = [
        6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
        15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
        21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
    ]

    var dtype: DType? {
        switch self {
        case .f32: .f32
        case .f16: .f16
        case .bf16: .bf16
        case .f64: .f64
        case .i8: .i8
        case .i16: .i16
        case .i32: .i32
        case .i64: .i64
        case .q4_0, .q4_1, .q8_0: nil
        }
    }

    /// Values of a block and its bytes.
    private var block: (values: Int, bytes: Int) {
        switch self {
        case .q4_0: (32, 18)
        case .q4_1: (32, 20)
        case .q8_0: (32, 34)
        default: (1, dtype?.byteCount ?? 1)
        }
    }

    /// Scheme of quantized types, without loss.
    private var scheme: QuantizationScheme? {
        switch self {
        case .q8_0: QuantizationScheme(bits: 8, group: .group(32), scaleType: .f16)
        case .q4_0: QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16)
        case .q4_1:
            QuantizationScheme(bits: 4, group: .group(32), scaleType: .f16, zero: .floatMinimum)
        default: nil
        }
    }

    var format: ElementFormat {
        scheme.map(ElementFormat.weight) ?? .plain(dtype ?? .f32)
    }

    /// Bytes of a tensor; nil if the shape does not suit the type or the size exceeds `Int`.
    func byteCount(_ shape: [Int]) -> Int? {
        guard let count = TensorData.elementCount(shape), let columns = shape.last,
            columns % block.values == 0
        else { return nil }
        let (size, overflow) = (count / block.values).multipliedReportingOverflow(by: block.bytes)
        return overflow ? nil : size
    }

    func weight(_ bytes: ByteView, shape: [Int]) throws -> WeightValue {
        if let dtype { return .plain(try TensorData(dtype: dtype, shape: shape, bytes: bytes)) }
        guard let scheme, shape.count == 2 || shape.count == 3 else {
            throw MartletError(.unsupported, "a quantized tensor of shape \(shape)")
        }
        return .quantized(try unpack(bytes, scheme, shape))
    }

    /// Takes blocks apart into codes, scales and minima.
    private func unpack(
        _ bytes: ByteView, _ scheme: QuantizationScheme, _ shape: [Int]
    ) throws -> QuantizedTensor {
        let blockBytes = block.bytes
        let blockCount = bytes.count / blockBytes
        let header = self == .q4_1 ? 4 : 2
        let codeBytes = scheme.bits == 4 ? 16 : 32
        var scales = ByteView(), minima = ByteView()
        let codes = ByteView(count: blockCount * codeBytes) { target in
            bytes.withUnsafeBytes { source in
                for index in 0..<blockCount {
                    let from = index * blockBytes + header, to = index * codeBytes
                    if scheme.bits == 8 {
                        // Signed to offset binary: flip the sign bit.
                        for i in 0..<32 { target[to + i] = source[from + i] ^ 0x80 }
                    } else {
                        // Byte i holds values i (low) and i + 16 (high); ours hold 2i and 2i + 1.
                        for i in 0..<8 {
                            let even = source[from + 2 * i], odd = source[from + 2 * i + 1]
                            target[to + i] = (even & 0x0f) | (odd << 4)
                            target[to + 8 + i] = (even >> 4) | (odd & 0xf0)
                        }
                    }
                }
            }
        }
        func field(_ offset: Int) -> ByteView {
            ByteView(count: blockCount * 2) { target in
                bytes.withUnsafeBytes { source in
                    for index in 0..<blockCount {
                        target[2 * index] = source[index * blockBytes + offset]
                        target[2 * index + 1] = source[index * blockBytes + offset + 1]
                    }
                }
            }
        }
        scales = field(0)
        if scheme.zero == .floatMinimum { minima = field(2) }
        return try QuantizedTensor(
            scheme: scheme, shape: shape, codes: codes, scales: scales, zeros: minima)
    }
}
