// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Evaluates the formula of `QuantizationScheme` for every code.
struct RowDecoder {
    private let tensor: QuantizedTensor

    init(_ tensor: QuantizedTensor) { self.tensor = tensor }

    /// Result memory; rows are written by one thread each.
    private struct Target: @unchecked Sendable {
        let values: UnsafeMutablePointer<Float>
    }

    func decode() throws -> TensorData {
        let scheme = tensor.scheme
        let (rowCount, columns) = (tensor.rowCount, tensor.inputCount)
        let groups = scheme.groupCount(inputs: columns)
        let size = scheme.groupSize(inputs: columns)
        let scales = try floats(tensor.scales, scheme.scaleType)
        let zeros: [Float] =
            switch scheme.zero {
            case .none: []
            case .integer: tensor.zeros.array(of: UInt8.self).map(Float.init)
            case .floatMinimum: try floats(tensor.zeros, scheme.scaleType)
            }
        let order = tensor.inputOrder?.array(of: Int32.self)
        let middle = Float(1 << (scheme.bits - 1))
        let codeBytes = scheme.bits == 4 ? (columns + 1) / 2 : columns
        let codes = tensor.codes
        let bytes = ByteView(count: rowCount * columns * 4) { memory in
            guard let base = memory.baseAddress, columns > 0 else { return }
            let target = Target(
                values: base.bindMemory(to: Float.self, capacity: rowCount * columns))
            let pieces = (rowCount + 63) / 64
            Parallel.forEach(pieces) { piece in
                codes.withUnsafeBytes { codes in
                    for row in piece * 64..<min(piece * 64 + 64, rowCount) {
                        for column in 0..<columns {
                            let code: UInt8
                            if scheme.bits == 4 {
                                let pair = codes[row * codeBytes + column / 2]
                                code = column & 1 == 0 ? pair & 0x0f : pair >> 4
                            } else {
                                code = codes[row * codeBytes + column]
                            }
                            let group = min(
                                max(order.map { Int($0[column]) } ?? column / size, 0), groups - 1)
                            let index = scheme.group == .tensor ? 0 : row * groups + group
                            let scale = scales[index]
                            target.values[row * columns + column] =
                                switch scheme.zero {
                                case .none: (Float(code) - middle) * scale
                                case .integer: (Float(code) - zeros[index]) * scale
                                case .floatMinimum: Float(code) * scale + zeros[index]
                                }
                        }
                    }
                }
            }
        }
        return try TensorData(dtype: .f32, shape: tensor.shape, bytes: bytes)
    }

    private func floats(_ view: ByteView, _ type: DType) throws -> [Float] {
        try TensorData(dtype: type, shape: [view.count / type.byteCount], bytes: view).floats()
    }
}
