// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
package import MartletBackend
import MartletCore

/// An instruction set of the micro-kernels.
package enum CPUInstructionSet: String, Sendable, CaseIterable {
    /// Portable C, which every CPU runs and which the others are compared with.
    case scalar
    /// x86 with AVX2, FMA and F16C.
    case avx2
    /// x86 with AVX-512, VNNI included.
    case avx512
    /// 64-bit Arm.
    case neon

    /// The best one that this CPU runs.
    package static var best: CPUInstructionSet {
        let isa = martlet_best_isa()
        return allCases.first { $0.code == isa } ?? .scalar
    }

    /// Those that this CPU runs.
    package static var available: [CPUInstructionSet] {
        allCases.filter { martlet_kernels_for($0.code) != nil }
    }

    private var code: martlet_isa {
        switch self {
        case .scalar: MARTLET_ISA_SCALAR
        case .avx2: MARTLET_ISA_AVX2
        case .avx512: MARTLET_ISA_AVX512
        case .neon: MARTLET_ISA_NEON
        }
    }

    /// Its micro-kernels.
    ///
    /// - Throws: `MartletError` `.unsupported` if this CPU cannot run them.
    func kernels() throws -> UnsafePointer<martlet_kernels> {
        guard let table = martlet_kernels_for(code) else {
            let names = CPUInstructionSet.available.map(\.rawValue).joined(separator: ", ")
            throw MartletError(
                .unsupported, "this CPU does not run \(rawValue) kernels", mend: "It runs: \(names)"
            )
        }
        return table
    }
}

/// How a CPU executor is set up.
package struct CPUOptions: Sendable {
    /// Largest step.
    package var limits: StepLimits
    /// Pages of the KV arena; nil takes them from `kvByteCount`.
    package var pageCount: Int?
    /// Bytes of the KV arena, rounded down to whole pages.
    package var kvByteCount: Int?
    /// Pages that blocks of paused requests are swapped to.
    package var hostPageCount = 0
    /// Threads; nil for one per available physical core.
    package var threadCount: Int?
    /// Instruction set; nil for the best.
    package var instructionSet: CPUInstructionSet?
    /// Slots of sampling state.
    package var stateSlotCount: Int
    /// Whether buffers are filled with NaN before each step, to find reads of what was not written.
    package var poisonsBuffers = false

    /// Options with defaults; set the rest by name.
    package init(
        limits: StepLimits, pageCount: Int? = nil, kvByteCount: Int? = nil,
        threadCount: Int? = nil, stateSlotCount: Int? = nil
    ) {
        self.limits = limits
        self.pageCount = pageCount
        self.kvByteCount = kvByteCount
        self.threadCount = threadCount
        self.stateSlotCount = stateSlotCount ?? limits.maxRequests
    }
}
