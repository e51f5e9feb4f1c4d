// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// A symbolic value while a model is traced: calling modules and operators on it records nodes.
///
/// Rows R are tokens T or logit rows O. Failures (shapes that do not fit) surface in `GraphBuilder.finish`.
public struct Tensor {
    /// The value in the graph.
    public let value: ValueID
    /// Its type.
    public let type: TensorType
    /// The builder that records.
    public let builder: GraphBuilder

    /// Columns, or 0 if not fixed.
    public var columns: Int { type.columns ?? 0 }

    /// Element-wise sum of equal types.
    public static func + (a: Tensor, b: Tensor) -> Tensor { a.builder.record("add", [a, b]) }

    /// Element-wise product of equal types.
    public static func * (a: Tensor, b: Tensor) -> Tensor { a.builder.record("mul", [a, b]) }

    /// Product with a number.
    public static func * (a: Tensor, factor: Double) -> Tensor {
        a.builder.record("scale", [a], ["factor": .float(factor)])
    }

    /// `x * transpose(weight) + bias`: `[R, K]` by `[N, K]` gives `[R, N]`.
    ///
    /// - Parameter dtype: Type of the result; the input's if nil.
    public func linear(_ weight: Tensor, bias: Tensor? = nil, dtype: DType? = nil) -> Tensor {
        var attributes: [String: AttributeValue] = [:]
        if let dtype { attributes["dtype"] = .string(dtype.rawValue) }
        return builder.record("linear", [self, weight, bias], attributes)
    }

    /// Rows of a table `[V, H]` for ids `[T]`.
    public func embedding(_ table: Tensor) -> Tensor {
        builder.record(
            "embedding", [table, self], ["dtype": .string(builder.dtype.rawValue)])
    }

    /// Normalizes rows: kind `rms` or `layer`.
    public func norm(
        kind: String = "rms", epsilon: Double, weight: Tensor?, bias: Tensor? = nil
    ) -> Tensor {
        builder.record(
            "norm", [self, weight, bias], ["kind": .string(kind), "epsilon": .float(epsilon)])
    }

    /// A nonlinearity: `silu`, `gelu`, `geluTanh` or `relu`.
    public func activation(_ kind: String) -> Tensor {
        builder.record("activation", [self], ["kind": .string(kind)])
    }

    /// Consecutive columns of given sizes.
    public func split(_ sizes: [Int]) -> [Tensor] {
        builder.record("split", [self], ["sizes": .ints(sizes)], resultCount: sizes.count)
    }

    /// Rows `rows[O]`.
    public func gatherRows(_ rows: Tensor) -> Tensor { builder.record("gatherRows", [self, rows]) }

    /// `cap * tanh(x / cap)`.
    public func softCap(_ cap: Double) -> Tensor {
        builder.record("softCap", [self], ["cap": .float(cap)])
    }

    /// The nearest numbers of another dtype.
    public func cast(_ dtype: DType) -> Tensor {
        builder.record("cast", [self], ["dtype": .string(dtype.rawValue)])
    }

    /// The next token of each row, drawn by the step's sampling parameters.
    public func sample() -> Tensor { builder.record("sample", [self]) }

    /// Mean of each request's rows: `[T, H]` gives `[B, H]`.
    public func meanPool() -> Tensor { builder.record("meanPool", [self]) }

    /// Rows divided by their Euclidean length.
    public func l2Normalize() -> Tensor { builder.record("l2Normalize", [self]) }
}
