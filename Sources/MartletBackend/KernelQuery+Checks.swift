// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore
package import MartletEngineFile

/// A reason to refuse a query or a plan step, in words.
package struct Refusal: Error {
    /// What does not fit.
    package let reason: String
    /// Gives the reason.
    package init(_ reason: String) { self.reason = reason }
}

extension KernelFamily {
    /// A family whose decision is written as a throwing function.
    ///
    /// - Parameter decide: Cost and layouts of a query; throws a `Refusal` where it does not compute it.
    package init(
        _ name: String, op: String, variants: [PlanVariant]? = nil, strided: Bool = true,
        decide: @escaping @Sendable (KernelQuery) throws -> (cost: KernelCost, layouts: [String?])
    ) {
        self.init(
            name: name, op: op, variants: variants ?? [PlanVariant(kernel: name)],
            acceptsStridedOperands: strided
        ) { query in
            do {
                let (cost, layouts) = try decide(query)
                return .accepted(cost: cost, layouts: layouts)
            } catch let refusal as Refusal {
                return .refused(refusal.reason)
            } catch {
                return .refused("\(error)")
            }
        }
    }
}

extension KernelQuery {
    /// The type of an operand that must be there.
    package func operand(_ index: Int) throws -> TensorType {
        guard let type = optional(index) else { throw Refusal("operand \(index) is missing") }
        return type
    }

    /// The type of an operand, nil where absent.
    package func optional(_ index: Int) -> TensorType? {
        operands.indices.contains(index) ? operands[index] : nil
    }

    /// The type of a result.
    package func result(_ index: Int = 0) throws -> TensorType {
        guard results.indices.contains(index) else { throw Refusal("result \(index) is missing") }
        return results[index]
    }

    /// Fails unless an operand is a parameter.
    package func requireParameter(_ index: Int) throws {
        guard isParameter.indices.contains(index), isParameter[index] else {
            throw Refusal("operand \(index) must be a parameter")
        }
    }

    /// Checks an optional parameter vector of f32, f16 or bf16 numbers.
    ///
    /// - Returns: The layout given, or nil where the operand is absent.
    package func vector(_ index: Int, count: Int?, layout: String) throws -> String? {
        guard let type = optional(index) else { return nil }
        try requireParameter(index)
        guard let element = type.format.dtype, [.f32, .f16, .bf16].contains(element) else {
            throw Refusal("a vector of \(type.format) is not read, only f32, f16, bf16")
        }
        guard type.rank == 1, count == nil || type.columns == count else {
            throw Refusal("operand \(index) must be a vector of \(count ?? 0), not \(type)")
        }
        return layout
    }
}
