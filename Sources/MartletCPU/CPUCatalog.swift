// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
package import MartletCore
import CMartletMicrokernels

/// What the CPU offers the compiler: kernels, layouts and sizes, for every instruction set.
///
/// Packed layouts do not depend on the instruction set, so one engine serves all; which table of
/// micro-kernels runs is chosen when an executor starts.
package struct CPUCatalog: KernelCatalog {
    /// The catalog.
    package init() {}

    package var target: String { "cpu" }
    package var families: [KernelFamily] { CPUOp.all.flatMap(\.families) }
    /// Two cores of a recent server; a constant, so that builds are reproducible.
    package var assumedBytesPerSecond: Double { 30e9 }
    package var kvBlockSize: Int { KVPages.kernelBlock }
    package var kvTypes: [DType] { [.f32, .f16, .bf16] }
    package var activationTypes: [DType] { [.f32, .f16, .bf16] }
    package var defaultActivations: ActivationFormat? { .int8g64 }

    package func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        CPUCatalog.rowBytes(format, columns: columns)
    }

    static func rowBytes(_ format: ElementFormat, columns: Int) -> Int? {
        guard columns > 0, columns <= 1 << 31 else { return nil }
        switch format {
        case .plain(.f32), .plain(.i32): return columns * 4
        case .plain(.f16), .plain(.bf16): return columns * 2
        case .activation(.int8g64): return martlet_int8g64_row_bytes(columns)
        default: return nil
        }
    }
}
