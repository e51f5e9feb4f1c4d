// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

/// One op of the CPU: what it tells the compiler, and how a plan step becomes something to run.
struct CPUOp: Sendable {
    /// Op name.
    let name: String
    /// Descriptors for kernel selection.
    let families: [KernelFamily]
    /// Checks a plan step and resolves its operands to addresses.
    let bind: @Sendable (Binder) throws -> any BoundKernel

    /// Every op the CPU computes.
    static let all: [CPUOp] = [
        .linear, .embedding, .norm, .addNorm, .activation, .gatedActivation, .add, .mul, .scale,
        .softCap, .rotary, .kvWrite, .attention, .cachedAttention, .slice, .concat, .reshape,
        .gatherRows, .softmax, .cast, .quantize, .dequantize, .normalizeRows, .meanPool,
        .l2Normalize, .sample,
    ]

    /// The ops by name.
    static let byName: [String: CPUOp] = Dictionary(
        all.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })

    /// An op with one family of its own name, whose operands and results are all rows.
    init(
        _ name: String, families: [KernelFamily],
        bind: @escaping @Sendable (Binder) throws -> any BoundKernel
    ) {
        self.name = name
        self.families = families
        self.bind = bind
    }
}

/// Kernels that the plan of a family names: only linears have more than one.
func singleVariant(_ kernel: String) -> [PlanVariant] { [PlanVariant(kernel: kernel)] }

/// A reason to refuse a query, in words.
struct Refusal: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }
}

extension KernelFamily {
    /// A family whose decision is written as a throwing function.
    init(
        _ name: String, op: String, variants: [PlanVariant]? = nil, strided: Bool = true,
        decide: @escaping @Sendable (KernelQuery) throws -> (cost: KernelCost, layouts: [String?])
    ) {
        self.init(
            name: name, op: op, variants: variants ?? singleVariant(name),
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
    func operand(_ index: Int) throws -> TensorType {
        guard operands.indices.contains(index), let type = operands[index] else {
            throw Refusal("operand \(index) is missing")
        }
        return type
    }

    /// The type of an operand, nil where absent.
    func optional(_ index: Int) -> TensorType? {
        operands.indices.contains(index) ? operands[index] : nil
    }

    /// The type of a result.
    func result(_ index: Int = 0) throws -> TensorType {
        guard results.indices.contains(index) else { throw Refusal("result \(index) is missing") }
        return results[index]
    }

    /// Checks that a type is rows of f32, f16 or bf16 (or of a coded format) and returns row bytes.
    func rows(_ type: TensorType, coded: Bool = false) throws -> Int {
        guard let columns = type.columns else { throw Refusal("\(type) has no fixed columns") }
        switch type.format {
        case .plain(.f32), .plain(.f16), .plain(.bf16): break
        case .activation(.int8g64) where coded: break
        default: throw Refusal("\(type.format) rows are not computed on, only f32, f16, bf16")
        }
        guard let bytes = CPUCatalog.rowBytes(type.format, columns: columns) else {
            throw Refusal("no rows of \(columns) columns")
        }
        return bytes
    }

    /// Checks an optional parameter vector of so many numbers; returns its layout.
    func vector(_ index: Int, count: Int?) throws -> String? {
        guard let type = optional(index) else { return nil }
        guard isParameter.indices.contains(index), isParameter[index] else {
            throw Refusal("operand \(index) must be a parameter")
        }
        guard let type32 = type.format.dtype, [.f32, .f16, .bf16].contains(type32) else {
            throw Refusal("a vector of \(type.format) is not read, only f32, f16, bf16")
        }
        guard type.rank == 1, count == nil || type.columns == count else {
            throw Refusal("operand \(index) must be a vector of \(count ?? 0), not \(type)")
        }
        return VectorLayout.name
    }

    /// The cost of reading and writing rows once, with some work per element.
    func rowCost(_ read: [TensorType], _ written: [TensorType], work: Int = 4) throws -> KernelCost
    {
        var bytes: Dimension = 0
        var elements: Dimension = 0
        for type in read + written {
            bytes = bytes + type.rows * (try rows(type, coded: true))
            elements = elements + type.rows * (type.columns ?? 0)
        }
        return KernelCost(bytes: bytes, operations: elements * work, operationsPerSecond: 20e9)
    }

    /// The usual decision of row ops: all of these operands and results are rows.
    func rowDecision(
        inputs: [Int], codedInput: Bool = false, codedResult: Bool = false, layouts: [String?] = [],
        work: Int = 4
    ) throws -> (cost: KernelCost, layouts: [String?]) {
        var read: [TensorType] = []
        for index in inputs {
            let type = try operand(index)
            _ = try rows(type, coded: codedInput)
            read.append(type)
        }
        for type in results { _ = try rows(type, coded: codedResult) }
        var all = layouts
        while all.count < operands.count { all.append(nil) }
        return (try rowCost(read, results, work: work), all)
    }
}
