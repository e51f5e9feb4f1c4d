// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How a tensor's activations are coded; scales travel with the codes.
public enum ActivationFormat: String, Sendable, Hashable, Codable, CaseIterable {
    /// Signed 8-bit codes with one f32 scale per 64 consecutive inputs, made per step.
    case int8g64
    /// Signed 8-bit codes with one scale per token (SmoothQuant).
    case int8token
    /// Signed 8-bit codes with one static scale per tensor (SmoothQuant).
    case int8tensor
    /// E4M3 codes with a scale per tensor or token.
    case fp8
}

/// What the elements of a tensor are: plain numbers, weight codes, activation codes, or a cache handle.
public enum ElementFormat: Sendable, Hashable {
    /// Plain numbers.
    case plain(DType)
    /// A weight coded by a scheme.
    case weight(QuantizationScheme)
    /// Quantized activations.
    case activation(ActivationFormat)
    /// The state of one layer's KV cache after a write: orders attention behind it.
    case cache

    /// The dtype of plain numbers.
    public var dtype: DType? { if case .plain(let type) = self { type } else { nil } }
    /// The scheme of a coded weight.
    public var scheme: QuantizationScheme? {
        if case .weight(let scheme) = self { scheme } else { nil }
    }
    /// The format of coded activations.
    public var activation: ActivationFormat? {
        if case .activation(let format) = self { format } else { nil }
    }
}

extension ElementFormat: CustomStringConvertible, LosslessStringConvertible {
    /// The name used in graph text and plans, such as `f32`, `int4.g64.f16`, `int8g64`, `cache`.
    public var description: String {
        switch self {
        case .plain(let type): type.rawValue
        case .weight(let scheme): scheme.description
        case .activation(let format): format.rawValue
        case .cache: "cache"
        }
    }

    /// Reads the name that `description` writes.
    public init?(_ text: String) {
        if let type = DType(rawValue: text) {
            self = .plain(type)
        } else if let format = ActivationFormat(rawValue: text) {
            self = .activation(format)
        } else if text == "cache" {
            self = .cache
        } else if let scheme = QuantizationScheme(text) {
            self = .weight(scheme)
        } else {
            return nil
        }
    }
}

/// The type of a value in a graph: element format and symbolic shape.
public struct TensorType: Sendable, Hashable {
    /// What the elements are.
    public var format: ElementFormat
    /// Sizes, outermost first, affine in the step's symbols.
    public var shape: [Dimension]

    /// Combines a format and a shape.
    public init(_ format: ElementFormat, _ shape: [Dimension]) {
        self.format = format
        self.shape = shape
    }

    /// Plain numbers of a shape.
    public init(_ dtype: DType, _ shape: [Dimension]) { self.init(.plain(dtype), shape) }

    /// Rank.
    public var rank: Int { shape.count }
    /// The innermost size, if fixed.
    public var columns: Int? { shape.last?.fixed }
    /// The outermost size of a matrix or vector of rows.
    public var rows: Dimension { shape.count > 1 ? shape[0] : 1 }
    /// All sizes, if fixed.
    public var fixedShape: [Int]? {
        let sizes = shape.compactMap(\.fixed)
        return sizes.count == shape.count ? sizes : nil
    }
}

extension TensorType: CustomStringConvertible {
    /// The form used in graph text, such as `f32[T, 576]`.
    public var description: String {
        "\(format)[\(shape.map(\.description).joined(separator: ", "))]"
    }
}
