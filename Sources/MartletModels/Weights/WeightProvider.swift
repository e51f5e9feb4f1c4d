// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// Where the compiler gets weights: a checkpoint through a weight map, random numbers, or a user's own.
public protocol WeightProvider: Sendable {
    /// How a weight is stored, without reading it.
    ///
    /// - Parameters:
    ///   - name: Martlet's name, such as `layers.0.attention.q.weight`.
    ///   - shape: Sizes that the model expects.
    /// - Throws: `MartletError` `.notFound` or `.shapeMismatch` naming the tensor in the checkpoint.
    func storage(of name: String, shape: [Int]) throws -> ElementFormat

    /// A weight's value, of the shape that the model expects.
    ///
    /// - Throws: As `storage(of:shape:)`, or `.corrupt` if it cannot be read.
    func weight(_ name: String, shape: [Int]) throws -> WeightValue
}

/// Random weights of a given spread, the same for the same seed: for models without a checkpoint.
public struct RandomWeights: WeightProvider {
    /// Seed of all weights.
    public let seed: UInt64
    /// Type of the numbers.
    public let dtype: DType

    /// Chooses seed and type.
    public init(seed: UInt64 = 0, dtype: DType = .f32) {
        self.seed = seed
        self.dtype = dtype
    }

    /// The chosen type.
    public func storage(of name: String, shape: [Int]) -> ElementFormat { .plain(dtype) }

    /// Uniform numbers with variance `1/K` for matrices, `1 + small` for vectors.
    public func weight(_ name: String, shape: [Int]) throws -> WeightValue {
        guard let count = TensorData.elementCount(shape) else {
            throw MartletError(.shapeMismatch, "\(name) cannot have shape \(shape)")
        }
        var state = name.utf8.reduce(seed &+ 0x9e37_79b9_7f4a_7c15) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        let inputs = Float(shape.last ?? 1)
        let isVector = shape.count == 1
        let spread = isVector ? 0.1 : (3 / max(inputs, 1)).squareRoot()
        let values = [Float](unsafeUninitializedCapacity: count) { buffer, filled in
            for index in 0..<count {
                state &+= 0x9e37_79b9_7f4a_7c15
                var word = state
                word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
                word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
                word ^= word >> 31
                let unit = Float(word >> 40) * 0x1p-23 - 1
                buffer.initializeElement(
                    at: index, to: isVector ? 1 + spread * unit : spread * unit)
            }
            filled = count
        }
        return .plain(try TensorData(values, shape: shape).converted(to: dtype))
    }
}
