// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletEngineFile
package import MartletModels

/// Where the values of an engine's parameters come from: a checkpoint, or an engine already built.
package protocol ParameterSource: Sendable {
    /// Makes a parameter's value, rows in order.
    ///
    /// - Parameters:
    ///   - request: What is wanted; its layout does not matter here.
    ///   - rowUnit: Rows that pieces (but the last) are a multiple of; nil for the whole at once.
    ///   - visit: Called for each piece.
    /// - Throws: What the source or the closure throws.
    func forEachPiece(
        of request: ParameterRequest, rowUnit: Int?, _ visit: (WeightValue) throws -> Void) throws

    /// A parameter as it is packed already; nil where it must be made.
    func packed(_ parameter: PlanParameter, for target: EngineTarget) -> ByteView?
}

extension ParameterSource {
    /// Nothing is packed already.
    package func packed(_ parameter: PlanParameter, for target: EngineTarget) -> ByteView? { nil }
}

/// Parameters of a model that is being compiled: constants of its graphs, and weights.
package struct ModelParameters: ParameterSource {
    /// Values of constants by name.
    let constants: [String: TensorData]
    /// Checkpoint or other source.
    let weights: any WeightProvider

    /// Joins constants and weights.
    package init(constants: [String: TensorData], weights: any WeightProvider) {
        self.constants = constants
        self.weights = weights
    }

    package func forEachPiece(
        of request: ParameterRequest, rowUnit: Int?, _ visit: (WeightValue) throws -> Void
    ) throws {
        try Compiler.materialize(
            request, constants: constants, weights: weights, rowUnit: rowUnit, visit: visit)
    }
}
