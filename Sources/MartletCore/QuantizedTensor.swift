// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A weight in canonical group form: codes, scales and zeros as views.
///
/// N outputs (rows), K inputs, G groups a row. Importers make it without decoding; weight maps
/// split, permute and stack its rows; quantizers make it from plain tensors.
public struct QuantizedTensor: Sendable {
    /// How to read the codes.
    public let scheme: QuantizationScheme
    /// `[N, K]`, or `[E, N, K]` for a stack of experts.
    public let shape: [Int]
    /// Unsigned codes, row-major: u8 `[N, K]`, or for 4 bits u8 `[N, ceil(K/2)]`, even k in the low nibble.
    public let codes: ByteView
    /// `[N, G]` in the scheme's scale type (`[1]` for one scale per tensor).
    public let scales: ByteView
    /// `[N, G]`: u8 for integer zeros, the scale's type for minima; empty without zeros.
    public let zeros: ByteView
    /// Group of each input where groups are not consecutive (`g_idx`, `[K]` i32); nil for k / groupSize.
    public let inputOrder: ByteView?

    /// Checks the parts against scheme and shape.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` naming the part whose size does not fit.
    public init(
        scheme: QuantizationScheme, shape: [Int], codes: ByteView, scales: ByteView,
        zeros: ByteView = ByteView(), inputOrder: ByteView? = nil
    ) throws {
        guard shape.count == 2 || shape.count == 3, let inputs = shape.last,
            let rows = TensorData.elementCount(Array(shape.dropLast())), inputs >= 0
        else {
            throw MartletError(
                .shapeMismatch, "a quantized tensor has rank 2 or 3, not shape \(shape)")
        }
        func check(_ part: String, _ view: ByteView, _ perRow: Int, rows: Int) throws {
            let (needed, overflow) = rows.multipliedReportingOverflow(by: perRow)
            guard !overflow, needed == view.count else {
                throw MartletError(
                    .shapeMismatch,
                    "\(part) of a \(scheme) tensor of shape \(shape) take \(needed) bytes, not \(view.count)"
                )
            }
        }
        let groups = scheme.groupCount(inputs: inputs)
        let scaleRows = scheme.group == .tensor ? 1 : rows
        try check("codes", codes, scheme.bits == 4 ? (inputs + 1) / 2 : inputs, rows: rows)
        try check("scales", scales, groups * scheme.scaleType.byteCount, rows: scaleRows)
        let zeroBytes: Int =
            switch scheme.zero {
            case .none: 0
            case .integer: 1
            case .floatMinimum: scheme.scaleType.byteCount
            }
        try check("zeros", zeros, groups * zeroBytes, rows: scaleRows)
        if let inputOrder { try check("input order", inputOrder, inputs * 4, rows: 1) }
        self.scheme = scheme
        self.shape = shape
        self.codes = codes
        self.scales = scales
        self.zeros = zeros
        self.inputOrder = inputOrder
    }

    /// Rows: outputs, times experts.
    public var rowCount: Int { shape.dropLast().reduce(1, *) }
    /// Inputs of a row, K.
    public var inputCount: Int { shape[shape.count - 1] }
}

/// The value of a weight: plain numbers or codes.
public enum WeightValue: Sendable {
    /// Plain numbers.
    case plain(TensorData)
    /// Codes with scales.
    case quantized(QuantizedTensor)

    /// Sizes, outermost first.
    public var shape: [Int] {
        switch self {
        case .plain(let tensor): tensor.shape
        case .quantized(let tensor): tensor.shape
        }
    }
}
