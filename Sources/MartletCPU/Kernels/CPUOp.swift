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

extension KernelQuery {
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
        try vector(index, count: count, layout: VectorLayout.name)
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
