// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore
import MartletEngineFile

/// Kernels of one op: what they tell the compiler, and how a plan step becomes launches.
struct CUDAFamily: Sendable {
    /// What selection sees.
    let descriptor: KernelFamily
    /// Checks a plan step and makes its launches.
    let bind: @Sendable (CUDABinder) throws -> [KernelLaunch]

    /// A family whose decision is written as a throwing function.
    init(
        _ name: String, op: String, strided: Bool = true,
        decide: @escaping @Sendable (KernelQuery) throws -> (cost: KernelCost, layouts: [String?]),
        bind: @escaping @Sendable (CUDABinder) throws -> [KernelLaunch]
    ) {
        descriptor = KernelFamily(name, op: op, strided: strided, decide: decide)
        self.bind = bind
    }

    /// Every family.
    static let all: [CUDAFamily] =
        linearFamilies + fusedLinearFamilies + rowFamilies + shapeFamilies + attentionFamilies + [
            sample
        ]

    /// The families by name.
    static let byName: [String: CUDAFamily] = Dictionary(
        all.map { ($0.descriptor.name, $0) }, uniquingKeysWith: { first, _ in first })
}

extension DType {
    /// Whether kernels compute on rows of the type.
    var isActivation: Bool { self == .f32 || self == .f16 || self == .bf16 }
}

extension KernelQuery {
    /// Bytes of a row of f32, f16 or bf16.
    func rowBytes(_ type: TensorType) throws -> Int {
        guard let columns = type.columns, columns > 0, columns < 1 << 28 else {
            throw Refusal("\(type) has no fixed columns")
        }
        guard let element = type.format.dtype, element.isActivation else {
            throw Refusal("\(type.format) rows are not computed on, only f32, f16, bf16")
        }
        return columns * element.byteCount
    }

    /// Checks an optional parameter vector of so many numbers; returns its layout.
    func vector(_ index: Int, count: Int?) throws -> String? {
        try vector(index, count: count, layout: RowLayout.name)
    }

    /// The decision of ops that read and write rows once.
    func rowDecision(
        inputs: [Int], layouts: [String?] = [], sameTypes: Bool = true, work: Int = 4
    ) throws -> (cost: KernelCost, layouts: [String?]) {
        var bytes: Dimension = 0
        var elements: Dimension = 0
        let read = try inputs.map { try operand($0) }
        for (index, type) in zip(inputs, read) where isParameter.indices.contains(index) {
            if isParameter[index] { throw Refusal("operand \(index), \(type), is a parameter") }
        }
        for type in read + results {
            bytes = bytes + type.rows * (try rowBytes(type))
            elements = elements + type.rows * (type.columns ?? 0)
            if sameTypes, type.format != read.first?.format {
                throw Refusal("\(type.format) and \(read[0].format) in one op")
            }
        }
        var all = layouts
        while all.count < operands.count { all.append(nil) }
        let cost = KernelCost(
            bytes: bytes, operations: elements * work, operationsPerSecond: CUDACatalog.plainRate)
        return (cost, all)
    }
}
