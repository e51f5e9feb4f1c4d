// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// Row operations on weights that decode nothing: rows are independent in every scheme.

extension WeightValue {
    /// Rows in another order: row i of the result is row `order[i]`.
    ///
    /// - Parameter order: Row numbers, each inside the weight; repeated or missing rows are allowed.
    /// - Throws: `MartletError` `.shapeMismatch` for a row outside the weight.
    public func selectingRows(_ order: [Int]) throws -> WeightValue {
        let rowCount = shape.dropLast().reduce(1, *)
        guard let width = shape.last, order.allSatisfy({ 0..<rowCount ~= $0 }) else {
            throw MartletError(.shapeMismatch, "rows outside the \(rowCount) of a weight \(shape)")
        }
        switch self {
        case .plain(let tensor):
            let rows = Self.gather(tensor.bytes, order, rowBytes: width * tensor.dtype.byteCount)
            return .plain(
                try TensorData(dtype: tensor.dtype, shape: [order.count, width], bytes: rows))
        case .quantized(let tensor):
            return .quantized(
                try QuantizedTensor(
                    scheme: tensor.scheme, shape: [order.count, width],
                    codes: Self.gather(
                        tensor.codes, order, rowBytes: tensor.codes.count / max(rowCount, 1)),
                    scales: tensor.scheme.group == .tensor
                        ? tensor.scales
                        : Self.gather(
                            tensor.scales, order, rowBytes: tensor.scales.count / max(rowCount, 1)),
                    zeros: tensor.scheme.group == .tensor
                        ? tensor.zeros
                        : Self.gather(
                            tensor.zeros, order, rowBytes: tensor.zeros.count / max(rowCount, 1)),
                    inputOrder: tensor.inputOrder))
        }
    }

    /// Consecutive rows, as views: nothing is copied.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if the range is not inside the weight.
    public func rows(_ range: Range<Int>) throws -> WeightValue {
        let rowCount = shape.dropLast().reduce(1, *)
        guard range.lowerBound >= 0, range.upperBound <= rowCount, let width = shape.last else {
            throw MartletError(.shapeMismatch, "rows \(range) lie outside a weight \(shape)")
        }
        func part(_ bytes: ByteView) -> ByteView {
            let rowBytes = bytes.count / max(rowCount, 1)
            return bytes.slice(range.lowerBound * rowBytes, count: range.count * rowBytes)
                ?? ByteView()
        }
        switch self {
        case .plain(let tensor):
            return .plain(
                try TensorData(
                    dtype: tensor.dtype, shape: [range.count, width], bytes: part(tensor.bytes)))
        case .quantized(let tensor):
            let sharesScale = tensor.scheme.group == .tensor
            return .quantized(
                try QuantizedTensor(
                    scheme: tensor.scheme, shape: [range.count, width],
                    codes: part(tensor.codes),
                    scales: sharesScale ? tensor.scales : part(tensor.scales),
                    zeros: sharesScale ? tensor.zeros : part(tensor.zeros),
                    inputOrder: tensor.inputOrder))
        }
    }

    /// Rows of several weights one after another; vectors are joined end to end.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if widths or storage differ.
    public static func concatenateRows(_ weights: [WeightValue]) throws -> WeightValue {
        guard let first = weights.first else {
            throw MartletError(.shapeMismatch, "no weights to join")
        }
        let isVector = first.shape.count == 1
        let width = isVector ? 1 : first.shape.last ?? 1
        func mismatch(_ other: WeightValue) -> MartletError {
            MartletError(
                .shapeMismatch,
                "cannot join weights of shapes \(first.shape) and \(other.shape) or unlike storage")
        }
        var rowCount = 0
        for weight in weights {
            guard weight.shape.count == first.shape.count, isVector || weight.shape.last == width
            else { throw mismatch(weight) }
            rowCount += weight.shape.dropLast(isVector ? 0 : 1).reduce(1, *)
        }
        switch first {
        case .plain(let tensor):
            var parts: [ByteView] = []
            for weight in weights {
                guard case .plain(let part) = weight, part.dtype == tensor.dtype else {
                    throw mismatch(weight)
                }
                parts.append(part.bytes)
            }
            return .plain(
                try TensorData(
                    dtype: tensor.dtype, shape: isVector ? [rowCount] : [rowCount, width],
                    bytes: ByteView(joining: parts)))
        case .quantized(let tensor):
            var parts: [QuantizedTensor] = []
            for weight in weights {
                guard case .quantized(let part) = weight, part.scheme == tensor.scheme,
                    part.scheme.group != .tensor, part.inputOrder == nil
                else { throw mismatch(weight) }
                parts.append(part)
            }
            return .quantized(
                try QuantizedTensor(
                    scheme: tensor.scheme, shape: [rowCount, width],
                    codes: ByteView(joining: parts.map(\.codes)),
                    scales: ByteView(joining: parts.map(\.scales)),
                    zeros: ByteView(joining: parts.map(\.zeros))))
        }
    }

    private static func gather(_ bytes: ByteView, _ order: [Int], rowBytes: Int) -> ByteView {
        ByteView(count: order.count * rowBytes) { target in
            bytes.withUnsafeBytes { source in
                guard rowBytes > 0, let from = source.baseAddress, let to = target.baseAddress
                else {
                    return
                }
                for (index, row) in order.enumerated() {
                    (to + index * rowBytes).copyMemory(
                        from: from + row * rowBytes, byteCount: rowBytes)
                }
            }
        }
    }
}

extension ByteView {
    /// Owned memory with the content of several views one after another.
    public init(joining parts: [ByteView]) {
        self.init(count: parts.reduce(0) { $0 + $1.count }) { target in
            var offset = 0
            for part in parts {
                part.withUnsafeBytes { source in
                    if let from = source.baseAddress, let to = target.baseAddress {
                        (to + offset).copyMemory(from: from, byteCount: source.count)
                    }
                }
                offset += part.count
            }
        }
    }
}
