// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension QuantizedTensor {
    /// The weight's numbers, by the formula of its scheme, evaluated in f32.
    ///
    /// - Returns: Row-major, `rowCount * inputCount` numbers.
    /// - Throws: `MartletError` `.corrupt` if an input order names a group that does not exist.
    package func referenceFloats() throws -> [Float] {
        let inputs = inputCount
        let groups = scheme.groupCount(inputs: inputs)
        let size = max(scheme.groupSize(inputs: inputs), 1)
        let scaleShape = [scales.count / scheme.scaleType.byteCount]
        let scale = try TensorData(dtype: scheme.scaleType, shape: scaleShape, bytes: scales)
            .floats()
        let zero: [Float] =
            switch scheme.zero {
            case .none: []
            case .integer: zeros.array(of: UInt8.self).map { Float($0) }
            case .floatMinimum:
                try TensorData(dtype: scheme.scaleType, shape: scaleShape, bytes: zeros).floats()
            }
        let order = inputOrder?.array(of: Int32.self).map { Int($0) }
        if let order, let bad = order.first(where: { !(0..<groups ~= $0) }) {
            throw MartletError(.corrupt, "input order names group \(bad) of \(groups)")
        }
        let bytes = codes.array(of: UInt8.self)
        let bytesPerRow = scheme.bits == 4 ? (inputs + 1) / 2 : inputs
        var result: [Float] = []
        result.reserveCapacity(rowCount * inputs)
        for row in 0..<rowCount {
            let firstScale = scheme.group == .tensor ? 0 : row * groups
            for k in 0..<inputs {
                let stored = bytes[row * bytesPerRow + (scheme.bits == 4 ? k / 2 : k)]
                let code = scheme.bits == 4 ? (k % 2 == 0 ? stored & 15 : stored >> 4) : stored
                let group = firstScale + (order?[k] ?? k / size)
                switch scheme.zero {
                case .none:
                    result.append((Float(code) - Float(1 << (scheme.bits - 1))) * scale[group])
                case .integer: result.append((Float(code) - zero[group]) * scale[group])
                case .floatMinimum: result.append(Float(code) * scale[group] + zero[group])
                }
            }
        }
        return result
    }
}

extension WeightValue {
    /// The weight's numbers in f32, decoded if it is quantized.
    ///
    /// - Throws: `MartletError` `.unsupported` for types without a conversion, `.corrupt` for codes
    ///   that do not decode.
    package func referenceFloats() throws -> [Float] {
        switch self {
        case .plain(let tensor): try tensor.floats()
        case .quantized(let tensor): try tensor.referenceFloats()
        }
    }
}
