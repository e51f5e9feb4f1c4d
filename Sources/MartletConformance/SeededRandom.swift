// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// SplitMix64: the same numbers on every machine.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// A seed that depends on a text too, so that each case has numbers of its own in each run.
    init(name: String, seed: UInt64) {
        // FNV-1a; `hashValue` differs from run to run.
        let hash = name.utf8.reduce(0xcbf2_9ce4_8422_2325) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        self.init(seed: hash &+ seed &* 0xd134_2543_de82_ef95)
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func floats(_ count: Int, in range: Range<Float> = -1..<1) -> [Float] {
        (0..<count).map { _ in Float.random(in: range, using: &self) }
    }

    /// A plain weight of random numbers.
    mutating func plain(
        _ dtype: DType, _ shape: [Int], in range: Range<Float> = -1..<1
    ) throws -> WeightValue {
        let values = floats(shape.reduce(1, *), in: range)
        return .plain(try TensorData(values, shape: shape).converted(to: dtype))
    }

    /// A quantized weight of random codes, scales and zeros; values lie near -1 to 1.
    mutating func quantized(_ scheme: QuantizationScheme, _ shape: [Int]) throws -> WeightValue {
        let (rows, inputs) = (shape[0], shape[1])
        let scaleCount = scheme.group == .tensor ? 1 : rows * scheme.groupCount(inputs: inputs)
        let levels: Float = scheme.bits == 4 ? 16 : 256
        let bytesPerRow = scheme.bits == 4 ? (inputs + 1) / 2 : inputs
        var codes = (0..<rows * bytesPerRow).map { _ in UInt8.random(in: 0...255, using: &self) }
        if scheme.bits == 4, inputs % 2 == 1 {
            for row in 0..<rows { codes[(row + 1) * bytesPerRow - 1] &= 15 }
        }
        func stored(_ values: [Float]) throws -> ByteView {
            try TensorData(values, shape: [values.count]).converted(to: scheme.scaleType).bytes
        }
        let scales = try stored(floats(scaleCount, in: 0.5..<2).map { $0 / levels })
        let zeros: ByteView
        switch scheme.zero {
        case .none: zeros = ByteView()
        case .integer:
            let highest = UInt8(levels - 1)
            zeros = ByteView(
                (0..<scaleCount).map { _ in UInt8.random(in: 0...highest, using: &self) })
        case .floatMinimum: zeros = try stored(floats(scaleCount, in: -1..<0))
        }
        return .quantized(
            try QuantizedTensor(
                scheme: scheme, shape: shape, codes: ByteView(codes), scales: scales, zeros: zeros))
    }
}
