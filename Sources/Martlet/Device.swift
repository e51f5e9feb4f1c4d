// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCUDA
import MartletCore
import MartletEngineFile

/// Where models run.
public enum Device: String, Sendable, Hashable, CaseIterable {
    /// The cores of this machine.
    case cpu
    /// An NVIDIA GPU.
    case cuda

    /// What can be compiled for where this device is at hand.
    ///
    /// - Parameters:
    ///   - gpuCode: Chips that engines for GPUs hold code for.
    ///   - engineCache: Folder of cached engines, under which compiled kernels are kept.
    func catalogs(gpuCode: [String] = [], engineCache: String? = nil) -> CatalogList {
        let gpu = CUDACatalog(code: gpuCode, cacheFolder: engineCache.map { $0 + "/kernels" })
        return switch self {
        case .cpu: CatalogList(device: CPUCatalog(), others: [gpu])
        case .cuda: CatalogList(device: gpu, others: [CPUCatalog()])
        }
    }
}

extension LoadOptions {
    /// Bytes of keys and values: as many as asked for, else as a full batch wants; on the CPU at most a
    /// quarter of the memory then, while a GPU knows what it has free.
    func cacheSize(wanted: Int) -> Int {
        kvCacheMemory ?? (device == .cpu ? min(wanted, MachineMemory.byteCount / 4) : wanted)
    }

    /// Bytes per second that copies within a GPU's memory move; nil on the CPU.
    ///
    /// Takes 2 GB while it measures: to be asked before a model is loaded.
    ///
    /// - Throws: `MartletError` if there is no GPU, or too little of its memory is free.
    package func copyCeiling() throws -> Double? {
        guard device == .cuda else { return nil }
        return try CUDADevice(CUDADriver.required()).copyBandwidth()
    }

    /// Loads an engine's plans on the device.
    ///
    /// - Throws: `MartletError` if the device is not there or its memory does not suffice.
    func executor(
        _ engine: LoadedEngine, limits: StepLimits, cacheBytes: Int
    ) throws -> any PlanExecutor {
        switch device {
        case .cpu:
            var cpu = CPUOptions(limits: limits, threadCount: threadCount)
            cpu.kvByteCount = cacheSize(wanted: cacheBytes)
            cpu.instructionSet = try CPUInstructionSet.named(instructionSet)
            if policy == .maxUtilization, preemption != .recompute {
                let page = try EngineKVGroups(engine.plans).groups.map(\.bytesPerBlock).max() ?? 0
                cpu.hostPageCount = (cpu.kvByteCount ?? 0) / max(page, 1)
            }
            return try CPUExecutor(
                plans: engine.plans, parameters: engine.parameters, options: cpu)
        case .cuda:
            var cuda = cudaOptions(limits: limits, cacheBytes: cacheBytes)
            cuda.architecture = gpuArchitecture.map { KernelArchitecture($0) }
            cuda.images = KernelImages(
                engine: engine.deviceCode, cacheFolder: engineCache.map { $0 + "/kernels" })
            return try CUDAExecutor(
                CUDADriver.required(), plans: engine.plans, parameters: engine.parameters,
                options: cuda)
        }
    }

    /// Limits and memory of an engine on a GPU.
    ///
    /// - Parameter cacheBytes: Bytes of keys and values that a full batch wants.
    func cudaOptions(limits: StepLimits, cacheBytes: Int) -> CUDAOptions {
        var cuda = CUDAOptions(limits: limits)
        cuda.kvByteCount = kvCacheMemory
        cuda.kvByteLimit = cacheBytes
        cuda.memoryFraction = memoryFraction
        cuda.isDeterministic = isDeterministic
        if policy == .maxUtilization, preemption != .recompute {
            // Locking more would take from the host what its page cache keeps of engines.
            cuda.hostByteCount = MachineMemory.byteCount / 4
            cuda.needsHostPages = preemption == .swap
        }
        return cuda
    }
}

extension EngineFileReader {
    /// Code of kernels for all chips, by module identity.
    var deviceCode: [String: ByteView] {
        var code: [String: ByteView] = [:]
        for section in manifest.sections where section.key.kind == .deviceCode {
            code[section.key.name] = view(section)
        }
        return code
    }
}
