// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A GPU as far as memory is planned for it: one of this machine, or one that is only named.
package struct GPUChip: Sendable {
    /// What people call it.
    package let name: String
    /// Whose kernels run.
    package let architecture: KernelArchitecture
    /// Memory in all, in bytes.
    package let byteCount: Int
    /// Memory that an engine finds free, in bytes.
    package let freeByteCount: Int

    /// What the driver keeps for a process with an engine's kernels and graphs, beside the engine's own budget.
    ///
    /// Measured on an H100, 28 graphs with 4,160 kernels: 0.56 GB, 11.436 in use (nvidia-smi) where the plan says 11.426 (`bench` and `plan --preset
    /// llama-3b --dtype bf16 --kv-dtype bf16 --device cuda --max-context 2048 --max-batch-size 256 --kv-cache-memory 4GB`).
    package static let driverByteCount = 550_000_000

    private init(_ name: String, _ architecture: String, mebibytes: Int) {
        self.name = name
        self.architecture = KernelArchitecture(architecture)
        byteCount = mebibytes << 20
        freeByteCount = byteCount - Self.driverByteCount
    }

    /// Code as it is chosen for this chip.
    package func running(_ code: KernelArchitecture) -> KernelArchitecture {
        code.limited(to: architecture.sharedMemoryPerBlock)
    }

    /// Chips that are known by name, with the memory that `nvidia-smi` tells of each.
    package static let known = [
        GPUChip("a10", "sm_86", mebibytes: 23_028),
        GPUChip("a100-40gb", "sm_80", mebibytes: 40_960),
        GPUChip("a100-80gb", "sm_80", mebibytes: 81_920),
        GPUChip("h100", "sm_90a", mebibytes: 81_559),
        GPUChip("h200", "sm_90a", mebibytes: 143_771),
        GPUChip("l4", "sm_89", mebibytes: 23_034),
        GPUChip("l40s", "sm_89", mebibytes: 46_068),
        GPUChip("rtx3090", "sm_86", mebibytes: 24_576),
        GPUChip("rtx4090", "sm_89", mebibytes: 24_564),
    ]

    /// A chip of the list.
    ///
    /// - Throws: `MartletError` `.invalidArgument` for a name that is not in it.
    package static func named(_ name: String) throws(MartletError) -> GPUChip {
        guard let chip = known.first(where: { $0.name == name.lowercased() }) else {
            throw MartletError(
                .invalidArgument, "there is no GPU '\(name)' in the list",
                mend: "Known: " + known.map(\.name).joined(separator: ", "))
        }
        return chip
    }

    /// The GPU of this machine.
    ///
    /// - Throws: `MartletError` `.device` where there is none, `.unsupported` for one without kernels.
    package init(_ driver: CUDADriver) throws {
        let device = try CUDADevice(driver)
        guard let best = KernelArchitecture.candidates(capability: device.capability).first else {
            throw MartletError(
                .unsupported, "there are no kernels for this GPU",
                mend: "Martlet needs compute capability 8.0 or later")
        }
        name = device.name
        architecture = best.limited(to: device.sharedMemoryPerBlock)
        byteCount = device.memoryByteCount
        freeByteCount = try device.freeMemory()
    }
}
