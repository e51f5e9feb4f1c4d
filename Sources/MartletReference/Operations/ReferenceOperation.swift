// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// One node with the values of its operands; extensions hold the evaluation of each op.
struct ReferenceOperation {
    typealias Function =
        @Sendable (ReferenceOperation, inout ReferenceStep) throws
        -> [ReferenceValue]

    let node: Node
    let operands: [ReferenceValue?]
    let dimensions: Dimension.Values
    let groups: [KVGroup]

    /// Evaluation by op name; a further op needs a line here, or a decomposition.
    static let functions: [String: Function] = [
        "embedding": { operation, _ in [try operation.embedding()] },
        "linear": { operation, _ in [try operation.linear()] },
        "norm": { operation, _ in [try operation.norm()] },
        "activation": { operation, _ in [try operation.activation()] },
        "add": { operation, _ in [try operation.combine { $0 + $1 }] },
        "mul": { operation, _ in [try operation.combine { $0 * $1 }] },
        "scale": { operation, _ in
            let factor = try operation.number("factor")
            return [try operation.map { Double($0) * factor }]
        },
        "softCap": { operation, _ in
            let cap = try operation.number("cap")
            return [try operation.map { cap * tanh(Double($0) / cap) }]
        },
        "rotary": { operation, _ in [try operation.rotary()] },
        "kvWrite": { operation, step in [try operation.writeCache(&step)] },
        "cache": { _, _ in [ReferenceValue(.cache, [], .cache)] },
        "attention": { operation, step in [try operation.attention(step)] },
        "split": { operation, _ in try operation.split() },
        "slice": { operation, _ in [try operation.slice()] },
        "concat": { operation, _ in [try operation.concat()] },
        "reshape": { operation, step in [try operation.reshape(step)] },
        "transpose": { operation, _ in [try operation.transpose()] },
        "gatherRows": { operation, _ in [try operation.gatherRows()] },
        "softmax": { operation, _ in [try operation.softmax()] },
        "cast": { operation, _ in [try operation.cast()] },
        "quantize": { operation, _ in [try operation.quantize()] },
        "dequantize": { operation, _ in [try operation.cast()] },
        "normalizeRows": { operation, _ in [try operation.normalizeRows()] },
        "l2Normalize": { operation, _ in [try operation.normalizeRows()] },
        "meanPool": { operation, step in [try operation.meanPool(step)] },
        "sample": { operation, _ in [try operation.sample()] },
        "allReduce": { operation, _ in [try operation.operand(0)] },
        "allGather": { operation, _ in [try operation.gatherOneRank()] },
    ]

    /// The value of an operand that must be there.
    func operand(_ index: Int) throws -> ReferenceValue {
        guard let value = optional(index) else {
            throw MartletError(.internalError, "operand \(index) of \(node.op) has no value")
        }
        return value
    }

    /// The value of an operand, nil where absent.
    func optional(_ index: Int) -> ReferenceValue? {
        operands.indices.contains(index) ? operands[index] : nil
    }

    func require(_ holds: Bool, _ message: @autoclosure () -> String) throws {
        if !holds { throw MartletError(.shapeMismatch, "\(node.op): \(message())") }
    }

    func int(_ name: String) throws -> Int {
        guard let value = node.attributes[name]?.int else {
            throw MartletError(.shapeMismatch, "\(node.op) needs an integer '\(name)'")
        }
        return value
    }

    func number(_ name: String) throws -> Double {
        guard let value = node.attributes[name]?.float else {
            throw MartletError(.shapeMismatch, "\(node.op) needs a number '\(name)'")
        }
        return value
    }

    /// The dtype that the node's first result has; f32 if it is not plain.
    var resultType: DType { node.results.first?.format.dtype ?? .f32 }

    /// A plain result, rounded to the result's type.
    func result(_ shape: [Int], _ values: [Float]) throws -> ReferenceValue {
        try ReferenceValue(resultType, shape, values)
    }

    /// A weight or constant as a value, rounded to the type that the graph gives it.
    static func source(
        _ weight: WeightValue, _ type: TensorType, name: String
    ) throws -> ReferenceValue {
        guard let shape = type.fixedShape, weight.shape == shape else {
            throw MartletError(
                .shapeMismatch,
                "weight '\(name)' has shape \(weight.shape), the graph wants \(type)")
        }
        switch (type.format, weight) {
        case (.plain(.i32), .plain(let tensor)) where tensor.dtype == .i32:
            return ReferenceValue(type.format, shape, .integers(tensor.bytes.array(of: Int32.self)))
        case (.plain(let dtype), _):
            return try ReferenceValue(dtype, shape, weight.referenceFloats())
        case (.weight(let scheme), .quantized(let tensor)) where tensor.scheme == scheme:
            return ReferenceValue(type.format, shape, .floats(try tensor.referenceFloats()))
        default:
            throw MartletError(
                .shapeMismatch,
                "weight '\(name)' is not stored as \(type.format), as the graph wants")
        }
    }
}
