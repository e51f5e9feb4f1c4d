// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore
package import MartletFormats

/// Weights of a checkpoint through an architecture's weight map.
public struct CheckpointWeights: WeightProvider {
    let checkpoint: any CheckpointSource
    private let map: WeightMap

    /// Joins a checkpoint and a map.
    package init(_ checkpoint: any CheckpointSource, map: WeightMap) {
        self.checkpoint = checkpoint
        self.map = map
    }

    func source(_ name: String) throws -> WeightSource {
        let sources = map.sources(of: name)
        // Without a match the first is named in the error that follows.
        guard let source = sources.first(where: { checkpoint.contains($0.tensor) }) ?? sources.first
        else {
            throw MartletError(.notFound, "the architecture does not say where '\(name)' is stored")
        }
        return source
    }

    /// How the tensor is stored.
    public func storage(of name: String, shape: [Int]) throws -> ElementFormat {
        switch try source(name) {
        case .tensor(let tensor), .rows(let tensor, _):
            let format = try checkpoint.storage(of: tensor)
            switch format.dtype {
            case .f8e4m3, .f8e5m2, .bool:
                throw MartletError(
                    .unsupported, "tensor '\(tensor)' is stored as \(format), which is not read",
                    mend: "Use a checkpoint in f32, f16 or bf16")
            default: return format
            }
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
            do {
                value = try checkpoint.weight(tensor).rows(range)
            } catch let error as MartletError { throw error.adding("tensor", tensor) }
        case .plusOne(let tensor):
            tensorName = tensor
            guard case .plain(let plain) = try checkpoint.weight(tensor) else {
                throw MartletError(.unsupported, "tensor '\(tensor)' is quantized")
            }
            value = .plain(try TensorData(plain.floats().map { $0 + 1 }, shape: plain.shape))
        }
        guard value.shape == shape else {
            throw Self.mismatch(tensorName, value.shape, shape)
        }
        return value
    }

    static func mismatch(
        _ tensor: String, _ found: [Int], _ wanted: [Int], _ note: String = ""
    ) -> MartletError {
        MartletError(
            .shapeMismatch,
            "tensor '\(tensor)' has shape \(found), the configuration needs \(wanted)\(note)",
            mend: "config.json and weights do not belong together")
    }
}
