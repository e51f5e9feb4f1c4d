// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
import MartletGraph
package import MartletModels

extension Compiler {
    /// Makes a parameter's value in the format of the engine.
    ///
    /// - Parameters:
    ///   - request: What is wanted.
    ///   - constants: Values of the graph's constants.
    ///   - weights: Checkpoint or other source.
    /// - Throws: What the source throws; `.unsupported` if the format cannot be reached.
    package static func materialize(
        _ request: ParameterRequest, constants: [String: TensorData], weights: any WeightProvider
    ) throws -> WeightValue {
        guard let expression = request.expression else {
            guard let value = constants[request.name] else {
                throw MartletError(.internalError, "constant '\(request.name)' has no value")
            }
            return .plain(try value.converted(to: request.format.dtype ?? .f32))
        }
        do {
            return try evaluate(expression, request.format, weights)
        } catch let error as MartletError {
            throw error.adding("parameter", request.name)
        }
    }

    static func evaluate(
        _ expression: WeightExpression, _ format: ElementFormat, _ weights: any WeightProvider
    ) throws -> WeightValue {
        switch expression {
        case .named(let name, let shape):
            return try WeightConversion.convert(try weights.weight(name, shape: shape), to: format)
        case .apply("concat", let parts):
            // Rows are independent in every scheme, so parts are coded one by one, then stacked.
            return try WeightValue.concatenateRows(
                try parts.map { try evaluate($0, format, weights) })
        case .apply(let op, let parts):
            guard let part = parts.first, parts.count == 1,
                case .plain(let tensor) = try evaluate(part, .plain(.f32), weights)
            else {
                throw MartletError(.corrupt, "'\(expression)' is not an operation on one weight")
            }
            return try WeightConversion.convert(
                .plain(try WeightConversion.apply(op, to: tensor)), to: format)
        }
    }
}
