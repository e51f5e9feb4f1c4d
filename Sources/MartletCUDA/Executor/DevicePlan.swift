// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
import MartletBackend
import MartletCore
import MartletEngineFile

/// Modules loaded on a device, by source and constants.
///
/// `@unchecked Sendable`: filled while loading, unchanged afterwards.
final class LoadedModules: @unchecked Sendable {
    private final class Box {
        let module: CUDAModule
        init(_ module: consuming CUDAModule) { self.module = module }
    }

    let device: CUDADevice
    private let images: KernelImages
    private let architecture: KernelArchitecture
    private var modules: [KernelModule: Box] = [:]
    private var functions: [String: LoadedKernel] = [:]
    private var ready: [KernelModule: ByteView] = [:]

    init(_ device: CUDADevice, images: KernelImages, architecture: KernelArchitecture) {
        self.device = device
        self.images = images
        self.architecture = architecture
    }

    /// Whether kernels may begin before those in front have ended.
    var allowsDependentLaunch: Bool { architecture.capability >= 90 }

    /// Finds the code of all modules, what must be compiled on all cores.
    func prepare(_ modules: [KernelModule]) throws {
        ready = try images.images(modules, for: architecture)
    }

    /// The kernel of a launch.
    func function(_ launch: KernelLaunch) throws -> LoadedKernel {
        let key = "\(launch.module)#\(launch.kernel)"
        if let known = functions[key] { return known }
        let box: Box
        if let known = modules[launch.module] {
            box = known
        } else {
            let image =
                try ready[launch.module]
                ?? images.image(launch.module, for: architecture)
            box = try image.withUnsafeBytes { bytes throws -> Box in
                guard let base = bytes.baseAddress else {
                    throw MartletError(.corrupt, "kernel code of no bytes")
                }
                return Box(try CUDAModule(device, image: base))
            }
            modules[launch.module] = box
        }
        let told = try box.module.facts(launch.kernel)
        guard told != nil || !launch.isSizedByCode else {
            throw MartletError(
                .corrupt,
                "the code of \(launch.module) does not say what '\(launch.kernel)' needs: it has no "
                    + "'\(launch.kernel)_launch'",
                mend: KernelLaunch.rebuild, context: ["kernel": launch.kernel])
        }
        let facts = told ?? (sharedBytes: launch.sharedBytes, block: launch.block)
        let function = LoadedKernel(
            handle: try box.module.function(launch.kernel, sharedBytes: facts.sharedBytes),
            sharedBytes: facts.sharedBytes, block: facts.block)
        functions[key] = function
        return function
    }
}

/// A kernel on the device.
struct LoadedKernel {
    let handle: martlet_cu_handle
    let sharedBytes: Int
    let block: Int
}

/// A bound plan with its functions on the device and its arguments in place.
///
/// `@unchecked Sendable`: immutable after loading, but for the graphs, which the submitting side owns.
final class DevicePlan: @unchecked Sendable {
    private struct Entry {
        let function: LoadedKernel
        let arguments: UnsafeMutableRawPointer
        let launch: KernelLaunch
        let step: Int
    }

    /// A graph that a dictionary can hold.
    private final class GraphBox {
        let graph: CUDAGraph
        init(_ graph: consuming CUDAGraph) { self.graph = graph }
    }

    let bound: BoundPlan
    private let entries: [Entry]
    private let arguments: UnsafeMutableRawPointer
    private let isDependent: Bool
    /// In order of the requests that they hold, each once for every slot.
    private var graphs: [(size: Int, kernelCount: Int, boxes: [GraphBox])] = []

    init(_ bound: BoundPlan, modules: LoadedModules) throws {
        self.bound = bound
        isDependent = modules.allowsDependentLaunch
        let bytes = bound.launches.map(\.launch.arguments.padded)
        let total = bytes.reduce(0) { $0 + $1.count }
        arguments = .allocate(byteCount: max(total, 1), alignment: 64)
        var entries: [Entry] = []
        var offset = 0
        do {
            for ((step, launch), bytes) in zip(bound.launches, bytes) {
                let place = arguments + offset
                bytes.withUnsafeBytes { source in
                    if let base = source.baseAddress {
                        place.copyMemory(from: base, byteCount: source.count)
                    }
                }
                for (start, matrix) in launch.arguments.matrices {
                    try modules.device.driver.encode(matrix, at: place + start)
                }
                offset += bytes.count
                entries.append(
                    Entry(
                        function: try modules.function(launch), arguments: place, launch: launch,
                        step: step))
            }
        } catch {
            arguments.deallocate()
            throw error
        }
        self.entries = entries
    }

    deinit { arguments.deallocate() }

    /// Starts all kernels for given counts.
    ///
    /// - Parameter marks: Where each kernel's end is to be marked.
    /// - Returns: How many there were.
    func launch(
        _ values: Dimension.Values, on stream: borrowing CUDAStream, marks: StepMarks? = nil
    ) throws(MartletError) -> Int {
        var count = 0
        try marks?.start(on: stream)
        for entry in entries {
            // The first waits for the step's inputs to be there: others read them before they wait for one another.
            let isStarted = try Self.start(
                entry.launch, entry.function, entry.arguments, values, on: stream,
                isDependent: isDependent && count > 0, path: bound.plan.steps[entry.step].path)
            guard isStarted else { continue }
            count += 1
            try marks?.mark(entry.step, on: stream)
        }
        return count
    }

    /// Starts one kernel.
    ///
    /// - Returns: Whether there was something to do for it.
    @discardableResult static func start(
        _ launch: KernelLaunch, _ function: LoadedKernel, _ arguments: UnsafeRawPointer,
        _ values: Dimension.Values, on stream: borrowing CUDAStream, isDependent: Bool,
        path: String
    ) throws(MartletError) -> Bool {
        let blocks = launch.grid(values)
        guard blocks.x > 0, blocks.y > 0, blocks.z > 0 else { return false }
        let grid: [UInt32] = [
            UInt32(clamping: blocks.x), UInt32(clamping: blocks.y), UInt32(clamping: blocks.z),
        ]
        let result = withUnsafePointer(to: stream.driver.table) {
            martlet_cuda_launch(
                $0, function.handle, grid, UInt32(function.block), UInt32(function.sharedBytes),
                stream.handle, isDependent ? 1 : 0, arguments)
        }
        if result != 0 {
            throw stream.driver.failure("cuLaunchKernelEx", result).adding("kernel", launch.kernel)
                .adding("path", path)
        }
        return true
    }

    // MARK: Graphs

    /// Buckets of decode steps: powers of two up to the largest batch, and that.
    static func buckets(_ limits: StepLimits) -> [Int] {
        let largest = min(limits.maxRequests, limits.maxTokens, limits.maxLogitRows)
        var buckets: [Int] = []
        var size = 1
        while size < largest {
            buckets.append(size)
            // Products take as long as rows there are, from 32 requests on by 16, from 96 on by 32.
            switch size {
            case 32..<96: size += 16
            case 96..<256: size += 32
            default: size *= 2
            }
        }
        return buckets + [largest]
    }

    /// The bucket for whose size the code of another one is chosen: an engine is built before anyone sets
    /// the largest batch.
    static func codeBucket(_ bucket: Int) -> Int {
        let known = buckets(CUDACatalog.codeLimits)
        return known.first { $0 >= bucket } ?? known[known.count - 1]
    }

    /// Records the graphs of all buckets.
    ///
    /// - Parameter step: Enqueues a step of a slot, the kernels of which the closure starts; returns how many kernels the step
    ///   has.
    func recordGraphs(
        _ options: CUDAOptions, slots: Int, on stream: borrowing CUDAStream,
        step: (Int, () throws(MartletError) -> Int) throws(MartletError) -> Int
    ) throws(MartletError) {
        for bucket in Self.buckets(options.limits) {
            let values = Dimension.Values(
                tokens: bucket, requests: bucket, logitRows: bucket,
                context: options.limits.maxContext, singles: options.singles(bucket))
            var (kernelCount, boxes): (Int, [GraphBox]) = (0, [])
            for slot in 0..<slots {
                let graph = try stream.capture { () throws(MartletError) in
                    kernelCount = try step(slot) { () throws(MartletError) in
                        try launch(values, on: stream)
                    }
                }
                boxes.append(GraphBox(graph))
            }
            graphs.append((bucket, kernelCount, boxes))
        }
    }

    /// Runs a slot's smallest graph that holds so many requests of one token each.
    ///
    /// - Returns: How many kernels it has; nil if there is none.
    func launchGraph(
        requests: Int, slot: Int, on stream: borrowing CUDAStream
    ) throws(MartletError) -> Int? {
        guard let found = graphs.first(where: { $0.size >= requests }) else { return nil }
        try found.boxes[slot].graph.launch(on: stream)
        return found.kernelCount
    }
}
