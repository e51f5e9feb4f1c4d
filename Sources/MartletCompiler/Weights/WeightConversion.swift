// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletQuantization

/// Changes of a weight's format, and operations on plain weights, when an engine is built.
enum WeightConversion {
    /// The weight in another format; itself where the format is the same.
    ///
    /// - Parameter firstRow: Number of its first row, for messages about a part of a weight.
    static func convert(
        _ weight: WeightValue, to format: ElementFormat, firstRow: Int = 0
    ) throws -> WeightValue {
        switch (weight, format) {
        case (.plain(let tensor), .plain(let type)): return .plain(try tensor.converted(to: type))
        case (.quantized(let tensor), .plain(let type)):
            return .plain(try SchemeRegistry.decode(tensor).converted(to: type))
        case (.quantized(let tensor), .weight(let scheme)) where tensor.scheme == scheme:
            return weight
        case (.quantized(let tensor), .weight(let scheme)):
            return .quantized(
                try SchemeRegistry.encode(
                    SchemeRegistry.decode(tensor), scheme, firstRow: firstRow))
        case (.plain(let tensor), .weight(let scheme)):
            return .quantized(try SchemeRegistry.encode(tensor, scheme, firstRow: firstRow))
        default:
            throw MartletError(.unsupported, "a weight cannot be stored as \(format)")
        }
    }

    /// Computes an op on a plain matrix, in f32 with f64 sums.
    static func apply(_ op: String, to tensor: TensorData) throws -> TensorData {
        let values = try tensor.floats()
        guard tensor.shape.count == 2 else {
            throw MartletError(.unsupported, "\(op) needs a matrix, not shape \(tensor.shape)")
        }
        let (rows, columns) = (tensor.shape[0], tensor.shape[1])
        switch op {
        case "transpose":
            var result = [Float](repeating: 0, count: values.count)
            for row in 0..<rows {
                for column in 0..<columns {
                    result[column * rows + row] = values[row * columns + column]
                }
            }
            return try TensorData(result, shape: [columns, rows])
        case "normalizeRows":
            var result = values
            for row in 0..<rows {
                let range = row * columns..<(row + 1) * columns
                let length = range.reduce(0.0) { $0 + Double(values[$1]) * Double(values[$1]) }
                    .squareRoot()
                // As torch.nn.functional.normalize: no division by less than 1e-12.
                for index in range {
                    result[index] = Float(Double(values[index]) / max(length, 1e-12))
                }
            }
            return try TensorData(result, shape: tensor.shape)
        case "cast": return tensor
        default:
            throw MartletError(.unsupported, "\(op) of weights cannot be computed at build time")
        }
    }
}
