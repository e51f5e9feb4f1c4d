// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

/// Converts rows between f32 and f16 or bf16.
final class ConversionKernel: BoundKernel {
    private let source: RowView
    private let target: RowView
    private let kernels: KernelTable

    /// - Throws: `Refusal` for other types.
    init(from source: RowView, to target: RowView, kernels: UnsafePointer<martlet_kernels>) throws {
        let types = [source.format, target.format]
        guard types.contains(.plain(.f32)),
            types.allSatisfy({ [.plain(.f32), .plain(.f16), .plain(.bf16)].contains($0) }),
            source.columns == target.columns, source.rows == target.rows
        else { throw Refusal("no conversion of \(source.format) to \(target.format)") }
        self.source = source
        self.target = target
        self.kernels = KernelTable(kernels)
    }

    var phaseCount: Int { 1 }

    func run(_ step: StepState, phase: Int, worker: Worker) {
        let columns = source.columns
        let table = kernels.pointer
        for row in worker.share(of: source.rows(step)) {
            let from = source.raw(row)
            let to = target.raw(row)
            switch (source.format, target.format) {
            case (.plain(.f16), _):
                table.pointee.f16_to_f32(
                    from.assumingMemoryBound(to: UInt16.self),
                    to.assumingMemoryBound(to: Float.self),
                    columns)
            case (.plain(.bf16), _):
                table.pointee.bf16_to_f32(
                    from.assumingMemoryBound(to: UInt16.self),
                    to.assumingMemoryBound(to: Float.self),
                    columns)
            case (_, .plain(.f16)):
                table.pointee.f32_to_f16(
                    from.assumingMemoryBound(to: Float.self),
                    to.assumingMemoryBound(to: UInt16.self),
                    columns)
            case (_, .plain(.bf16)):
                table.pointee.f32_to_bf16(
                    from.assumingMemoryBound(to: Float.self),
                    to.assumingMemoryBound(to: UInt16.self),
                    columns)
            default: to.copyMemory(from: from, byteCount: columns * 4)
            }
        }
    }
}

/// The micro-kernels of an instruction set.
///
/// `@unchecked Sendable`: points to a constant table.
struct KernelTable: @unchecked Sendable {
    let pointer: UnsafePointer<martlet_kernels>
    init(_ pointer: UnsafePointer<martlet_kernels>) { self.pointer = pointer }
}
