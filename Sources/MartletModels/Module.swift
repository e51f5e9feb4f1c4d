// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletGraph

/// A part of a model: a value that records nodes when it is called under a `GraphBuilder`.
///
/// A module's name is its place in its parent; names joined by dots are the paths of nodes and the
/// names of parameters, such as `layers.3.attention.q.weight`.
public protocol Module: Sendable {
    /// Name within the parent.
    var name: String { get }
}

extension Module {
    /// Records under this module's path.
    public func scoped<Result>(_ x: Tensor, _ body: (GraphBuilder) -> Result) -> Result {
        x.builder.scope(name) { body(x.builder) }
    }
}

extension GraphBuilder {
    /// A weight of the module being recorded: `<path>.<name>`.
    public func ownParameter(_ name: String, _ shape: [Int]) -> Tensor {
        parameter(path.isEmpty ? name : path + "." + name, shape)
    }
}

/// What every layer may read of the step.
public struct StepInputs {
    /// Absolute positions `[T]`.
    public let positions: Tensor
    /// Inverse rotary frequencies `[R/2]`, where the model has them.
    public let inverseFrequencies: Tensor?
    /// Slopes of the heads `[N]`, where scores fall with distance (ALiBi).
    public let slopes: Tensor?

    /// Collects the inputs.
    public init(positions: Tensor, inverseFrequencies: Tensor? = nil, slopes: Tensor? = nil) {
        self.positions = positions
        self.inverseFrequencies = inverseFrequencies
        self.slopes = slopes
    }
}
