// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCPU
import MartletCore

/// What this machine does at most, measured.
package struct MachineCeilings: Sendable {
    /// Bytes per second that all threads read together from memory of the working set's size.
    package let bytesPerSecond: Double
    /// Operations per second of int8 dot products, 2 per multiply-add.
    package let int8PerSecond: Double
    /// Operations per second of f32 multiply-adds, 2 each.
    package let floatPerSecond: Double
    /// Threads that measured.
    package let threadCount: Int

    /// Measures for a fraction of a second.
    ///
    /// - Parameters:
    ///   - workingSet: Bytes read per step: what fits a cache is read faster.
    ///   - options: Threads and instruction set.
    /// - Throws: `MartletError` if this CPU cannot run the kernels, or memory does not suffice.
    package static func measure(workingSet: Int, options: LoadOptions) throws -> MachineCeilings {
        let probe = try CPUProbe(
            threadCount: options.threadCount,
            instructionSet: try CPUInstructionSet.named(options.instructionSet))
        // Far more than any cache is like more still.
        let byteCount = min(max(workingSet, 1 << 20), 512 << 20)
        let passes = min(max((2 << 30) / byteCount, 3), 20)
        return MachineCeilings(
            bytesPerSecond: try probe.readBandwidth(byteCount: byteCount, passes: passes),
            int8PerSecond: probe.int8Peak(iterations: 5_000_000),
            floatPerSecond: probe.floatPeak(iterations: 5_000_000), threadCount: probe.threadCount)
    }
}

extension CPUInstructionSet {
    /// The set of a name, nil for no name.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for one that this CPU does not run.
    static func named(_ name: String?) throws -> CPUInstructionSet? {
        guard let name else { return nil }
        guard let set = CPUInstructionSet(rawValue: name), available.contains(set) else {
            throw MartletError(
                .invalidArgument, "instruction set '\(name)' is not available",
                mend: "Available: " + available.map(\.rawValue).joined(separator: ", "))
        }
        return set
    }
}
