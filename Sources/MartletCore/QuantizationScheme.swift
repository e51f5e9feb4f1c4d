// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How the numbers of a weight are coded: the one descriptor that graphs, files and kernels see.
///
/// Codes are unsigned, `0 ..< 2^bits`. With scale s and zero z of the code's group the value is
///
/// - zero `none`: `(code - 2^(bits-1)) * s` (symmetric, offset binary)
/// - zero `integer`: `(code - z) * s`
/// - zero `floatMinimum`: `code * s + z`
///
/// evaluated in f32 after widening s and z. This form holds AWQ, GPTQ, compressed-tensors, Q4_0,
/// Q4_1 and Q8_0 without loss.
public struct QuantizationScheme: Sendable, Hashable, Codable {
    /// Which weights share a scale; groups lie along K, the input dimension.
    public enum GroupShape: Sendable, Hashable, Codable {
        /// One scale for the whole tensor.
        case tensor
        /// One scale per output channel (row).
        case channel
        /// One scale per so many inputs of a row.
        case group(Int)
    }

    /// How zero is represented.
    public enum ZeroKind: String, Sendable, Hashable, Codable {
        /// Symmetric: zero is the middle code.
        case none
        /// An integer code per group stands for zero.
        case integer
        /// The value of code 0 is stored per group, in the scale's type.
        case floatMinimum
    }

    /// Bits per code: 4 or 8.
    public var bits: Int
    /// Which weights share a scale.
    public var group: GroupShape
    /// Type of scales (and of minima): f32, f16 or bf16.
    public var scaleType: DType
    /// How zero is represented.
    public var zero: ZeroKind

    /// Describes a scheme.
    public init(bits: Int, group: GroupShape, scaleType: DType, zero: ZeroKind = .none) {
        self.bits = bits
        self.group = group
        self.scaleType = scaleType
        self.zero = zero
    }

    /// Inputs per group in rows of K inputs.
    public func groupSize(inputs: Int) -> Int {
        if case .group(let size) = group { size } else { inputs }
    }

    /// Groups in a row of K inputs (the last may be short).
    public func groupCount(inputs: Int) -> Int {
        let size = max(groupSize(inputs: inputs), 1)
        return (inputs + size - 1) / size
    }

    /// Bits of storage per weight, scales and zeros included, for rows of K inputs.
    public func bitsPerWeight(inputs: Int) -> Double {
        let zeroBits: Int =
            switch zero {
            case .none: 0
            case .integer: 8
            case .floatMinimum: scaleType.byteCount * 8
            }
        return Double(bits)
            + Double(scaleType.byteCount * 8 + zeroBits) / Double(max(groupSize(inputs: inputs), 1))
    }
}

extension QuantizationScheme: CustomStringConvertible, LosslessStringConvertible {
    /// The form used in graph text, such as `int4.g32.min.f16` or `int8.channel.f32`.
    public var description: String {
        let groupText: String =
            switch group {
            case .tensor: "tensor"
            case .channel: "channel"
            case .group(let size): "g\(size)"
            }
        let zeroText: String =
            switch zero {
            case .none: ""
            case .integer: ".zero"
            case .floatMinimum: ".min"
            }
        return "int\(bits).\(groupText)\(zeroText).\(scaleType.rawValue)"
    }

    /// Reads the form that `description` writes.
    public init?(_ text: String) {
        var parts = text.split(separator: ".").map(String.init)
        guard parts.count == 3 || parts.count == 4, parts[0] == "int4" || parts[0] == "int8",
            let last = parts.popLast(), let type = DType(rawValue: last)
        else { return nil }
        self.init(bits: parts[0] == "int4" ? 4 : 8, group: .channel, scaleType: type)
        switch parts[1] {
        case "tensor": group = .tensor
        case "channel": group = .channel
        default:
            guard parts[1].first == "g", let size = Int(parts[1].dropFirst()), size > 0 else {
                return nil
            }
            group = .group(size)
        }
        if parts.count == 3 {
            switch parts[2] {
            case "zero": zero = .integer
            case "min": zero = .floatMinimum
            default: return nil
            }
        }
    }
}
