// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Named weights of a checkpoint, read on demand.
package protocol CheckpointSource: Sendable {
    /// Names of all tensors.
    var names: [String] { get }
    /// Whether there is a tensor of that name.
    func contains(_ name: String) -> Bool
    /// Sizes of a tensor, outermost first, without reading it.
    ///
    /// - Throws: `MartletError` `.notFound` if there is none.
    func shape(of name: String) throws -> [Int]
    /// How a tensor is stored, without reading it.
    ///
    /// - Throws: `MartletError` `.notFound`; `.unsupported` for a storage Martlet cannot read.
    func storage(of name: String) throws -> ElementFormat
    /// A tensor's value: plain numbers as views of the file, codes in canonical form.
    ///
    /// - Throws: As `storage(of:)`.
    func weight(_ name: String) throws -> WeightValue
}

/// A checkpoint held in memory.
package struct InMemoryCheckpoint: CheckpointSource {
    private let weights: [String: WeightValue]

    /// Wraps weights by name.
    package init(_ weights: [String: WeightValue]) { self.weights = weights }

    package var names: [String] { weights.keys.sorted() }
    package func contains(_ name: String) -> Bool { weights[name] != nil }
    package func shape(of name: String) throws -> [Int] { try weight(name).shape }
    package func storage(of name: String) throws -> ElementFormat {
        switch try weight(name) {
        case .plain(let tensor): .plain(tensor.dtype)
        case .quantized(let tensor): .weight(tensor.scheme)
        }
    }
    package func weight(_ name: String) throws -> WeightValue {
        guard let value = weights[name] else {
            throw MartletError.missingTensor(name)
        }
        return value
    }
}

extension MartletError {
    /// A checkpoint lacks a tensor that the model needs.
    static func missingTensor(_ name: String) -> MartletError {
        MartletError(
            .notFound, "the checkpoint has no tensor '\(name)'",
            mend: "Fetch the model again, or check that configuration and weights belong together",
            context: ["tensor": name])
    }
}
