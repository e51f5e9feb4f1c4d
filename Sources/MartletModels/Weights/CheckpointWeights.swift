// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore
package import MartletFormats

/// Weights of a checkpoint through an architecture's weight map.
public struct CheckpointWeights: WeightProvider {
    private let checkpoint: any CheckpointSource
    private let map: WeightMap

    /// Joins a checkpoint and a map.
    package init(_ checkpoint: any CheckpointSource, map: WeightMap) {
        self.checkpoint = checkpoint
        self.map = map
    }

    private func source(_ name: String) throws -> WeightSource {
        guard let source = map.source(of: name) else {
            throw MartletError(.notFound, "the architecture does not say where '\(name)' is stored")
        }
        return source
    }

    /// How the tensor is stored.
    public func storage(of name: String, shape: [Int]) throws -> ElementFormat {
        switch try source(name) {
        case .tensor(let tensor), .rows(let tensor, _): return try checkpoint.storage(of: tensor)
        case .plusOne: return .plain(.f32)
        }
    }

    /// The tensor's value, rows selected; its shape must be the one the model declares.
    public func weight(_ name: String, shape: [Int]) throws -> WeightValue {
        let value: WeightValue
        let tensorName: String
        switch try source(name) {
        case .tensor(let tensor):
            tensorName = tensor
            value = try checkpoint.weight(tensor)
        case .rows(let tensor, let range):
            tensorName = tensor
            value = try checkpoint.weight(tensor).rows(range)
        case .plusOne(let tensor):
            tensorName = tensor
            guard case .plain(let plain) = try checkpoint.weight(tensor) else {
                throw MartletError(.unsupported, "tensor '\(tensor)' is quantized")
            }
            value = .plain(try TensorData(plain.floats().map { $0 + 1 }, shape: plain.shape))
        }
        guard value.shape == shape else {
            throw MartletError(
                .shapeMismatch,
                "tensor '\(tensorName)' has shape \(value.shape), the configuration needs \(shape)",
                mend: "config.json and weights do not belong together")
        }
        return value
    }
}
