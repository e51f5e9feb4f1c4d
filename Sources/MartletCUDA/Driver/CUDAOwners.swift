// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
import MartletCore

/// Memory of the device; freed with its owner.
struct DeviceMemory: ~Copyable, @unchecked Sendable {
    let address: UInt64
    let byteCount: Int
    private let device: CUDADevice
    private var driver: CUDADriver { device.driver }

    init(_ device: CUDADevice, byteCount: Int) throws(MartletError) {
        let driver = device.driver
        var address: martlet_cu_address = 0
        try driver.check("cuMemAlloc", driver.table.cuMemAlloc?(&address, max(byteCount, 1)))
        self.address = address
        self.byteCount = byteCount
        self.device = device
    }

    deinit { device.release { _ = $0.cuMemFree?(address) } }
}

/// Memory of the host that the device can copy from and to at full speed; freed with its owner.
struct PinnedMemory: ~Copyable, @unchecked Sendable {
    let base: UnsafeMutableRawPointer
    let byteCount: Int
    private let device: CUDADevice
    private var driver: CUDADriver { device.driver }

    init(_ device: CUDADevice, byteCount: Int) throws(MartletError) {
        let driver = device.driver
        var base: UnsafeMutableRawPointer?
        try driver.check(
            "cuMemAllocHost", driver.table.cuMemAllocHost?(&base, max(byteCount, 1)))
        guard let base else { throw driver.failure("cuMemAllocHost", 2) }
        self.base = base
        self.byteCount = byteCount
        self.device = device
    }

    deinit { device.release { _ = $0.cuMemFreeHost?(base) } }
}

/// A queue of work on the device; destroyed with its owner.
struct CUDAStream: ~Copyable, @unchecked Sendable {
    let handle: martlet_cu_handle
    let device: CUDADevice
    var driver: CUDADriver { device.driver }

    init(_ device: CUDADevice) throws(MartletError) {
        let driver = device.driver
        var handle: martlet_cu_handle?
        // CU_STREAM_NON_BLOCKING
        try driver.check("cuStreamCreate", driver.table.cuStreamCreate?(&handle, 1))
        guard let handle else { throw driver.failure("cuStreamCreate", 999) }
        self.handle = handle
        self.device = device
    }

    deinit { device.release { _ = $0.cuStreamDestroy?(handle) } }

    func synchronize() throws(MartletError) {
        try driver.check("cuStreamSynchronize", driver.table.cuStreamSynchronize?(handle))
    }

    func copy(to address: UInt64, from bytes: UnsafeRawPointer, count: Int) throws(MartletError) {
        guard count > 0 else { return }
        try driver.check(
            "cuMemcpyHtoDAsync", driver.table.cuMemcpyHtoDAsync?(address, bytes, count, handle))
    }

    func copy(
        to bytes: UnsafeMutableRawPointer, from address: UInt64, count: Int
    ) throws(MartletError) {
        guard count > 0 else { return }
        try driver.check(
            "cuMemcpyDtoHAsync", driver.table.cuMemcpyDtoHAsync?(bytes, address, count, handle))
    }

    func copy(to target: UInt64, from source: UInt64, count: Int) throws(MartletError) {
        guard count > 0 else { return }
        try driver.check(
            "cuMemcpyDtoDAsync", driver.table.cuMemcpyDtoDAsync?(target, source, count, handle))
    }

    func fill(_ address: UInt64, with byte: UInt8, count: Int) throws(MartletError) {
        guard count > 0 else { return }
        try driver.check(
            "cuMemsetD8Async", driver.table.cuMemsetD8Async?(address, byte, count, handle))
    }

    /// Makes later work wait for an event.
    func wait(for event: borrowing CUDAEvent) throws(MartletError) {
        try driver.check(
            "cuStreamWaitEvent", driver.table.cuStreamWaitEvent?(handle, event.handle, 0))
    }

    /// Records what the closure enqueues as a graph instead of running it.
    func capture(_ body: () throws(MartletError) -> Void) throws(MartletError) -> CUDAGraph {
        // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other engines of the process go on.
        try driver.check("cuStreamBeginCapture", driver.table.cuStreamBeginCapture?(handle, 1))
        var failure: MartletError?
        do throws(MartletError) { try body() } catch { failure = error }
        // Ended in any case, or the stream stays unusable.
        var graph: martlet_cu_handle?
        let result = driver.table.cuStreamEndCapture?(handle, &graph)
        defer { if let graph { _ = driver.table.cuGraphDestroy?(graph) } }
        if let failure { throw failure }
        try driver.check("cuStreamEndCapture", result)
        guard let graph else { throw driver.failure("cuStreamEndCapture", 999) }
        return try CUDAGraph(device, graph: graph)
    }
}

/// A graph of launches, ready to run any number of times; destroyed with its owner.
struct CUDAGraph: ~Copyable, @unchecked Sendable {
    private let handle: martlet_cu_handle
    private let device: CUDADevice
    private var driver: CUDADriver { device.driver }

    init(_ device: CUDADevice, graph: martlet_cu_handle) throws(MartletError) {
        let driver = device.driver
        var handle: martlet_cu_handle?
        try driver.check(
            "cuGraphInstantiate", driver.table.cuGraphInstantiateWithFlags?(&handle, graph, 0))
        guard let handle else { throw driver.failure("cuGraphInstantiate", 999) }
        self.handle = handle
        self.device = device
    }

    deinit { device.release { _ = $0.cuGraphExecDestroy?(handle) } }

    func launch(on stream: borrowing CUDAStream) throws(MartletError) {
        try driver.check("cuGraphLaunch", driver.table.cuGraphLaunch?(handle, stream.handle))
    }
}

/// A point in a stream that can be waited for; destroyed with its owner.
struct CUDAEvent: ~Copyable, @unchecked Sendable {
    let handle: martlet_cu_handle
    private let device: CUDADevice
    private var driver: CUDADriver { device.driver }

    /// - Parameter isTimed: Whether the event tells times.
    init(_ device: CUDADevice, isTimed: Bool = true) throws(MartletError) {
        let driver = device.driver
        var handle: martlet_cu_handle?
        // CU_EVENT_BLOCKING_SYNC, so that waiting threads sleep, and CU_EVENT_DISABLE_TIMING.
        try driver.check(
            "cuEventCreate", driver.table.cuEventCreate?(&handle, isTimed ? 1 : 3))
        guard let handle else { throw driver.failure("cuEventCreate", 999) }
        self.handle = handle
        self.device = device
    }

    deinit { device.release { _ = $0.cuEventDestroy?(handle) } }

    /// - Parameter isCaptured: Whether each run of the graph that the stream is captured into records the event.
    func record(
        on stream: borrowing CUDAStream, isCaptured: Bool = false
    ) throws(MartletError) {
        // CU_EVENT_RECORD_EXTERNAL, else the event would only order the captured work.
        try driver.check(
            "cuEventRecord",
            driver.table.cuEventRecordWithFlags?(handle, stream.handle, isCaptured ? 1 : 0))
    }

    /// Waits for the event: looks for it for a while, then sleeps.
    func synchronize(spin: Duration = .zero) throws(MartletError) {
        if spin > .zero, let query = driver.table.cuEventQuery {
            // CUDA_ERROR_NOT_READY
            var result: martlet_cu_result = 600
            let isKnown = SpinWait.look(for: spin) {
                result = query(handle)
                return result != 600
            }
            if isKnown { return try driver.check("cuEventQuery", result) }
        }
        try driver.check("cuEventSynchronize", driver.table.cuEventSynchronize?(handle))
    }

    /// Seconds from another event to this one.
    func seconds(since start: borrowing CUDAEvent) throws(MartletError) -> Double {
        var milliseconds: Float = 0
        try driver.check(
            "cuEventElapsedTime",
            driver.table.cuEventElapsedTime?(&milliseconds, start.handle, handle))
        return Double(milliseconds) / 1000
    }
}

/// Code loaded onto the device; unloaded with its owner.
struct CUDAModule: ~Copyable, @unchecked Sendable {
    private let handle: martlet_cu_handle
    private let device: CUDADevice
    private var driver: CUDADriver { device.driver }

    /// Loads a cubin, or PTX with a zero byte at its end.
    init(_ device: CUDADevice, image: UnsafeRawPointer) throws(MartletError) {
        let driver = device.driver
        var handle: martlet_cu_handle?
        try driver.check(
            "cuModuleLoadDataEx", driver.table.cuModuleLoadDataEx?(&handle, image, 0, nil, nil))
        guard let handle else { throw driver.failure("cuModuleLoadDataEx", 999) }
        self.handle = handle
        self.device = device
    }

    deinit { device.release { _ = $0.cuModuleUnload?(handle) } }

    /// What a kernel says of its launch: shared memory in bytes, then threads of a block; nil for one that says
    /// nothing.
    func facts(_ name: String) throws(MartletError) -> (sharedBytes: Int, block: Int)? {
        var address: martlet_cu_address = 0
        var count = 0
        let result = driver.table.cuModuleGetGlobal?(&address, &count, handle, "\(name)_launch")
        // CUDA_ERROR_NOT_FOUND
        if result == 500 { return nil }
        if result != 0 {
            throw driver.failure("cuModuleGetGlobal", result ?? 999).adding("kernel", name)
        }
        guard count >= 8 else {
            throw MartletError(
                .corrupt, "'\(name)_launch' of a kernel's code has \(count) bytes, not 8 or more",
                mend: KernelLaunch.rebuild, context: ["kernel": name])
        }
        var numbers: (UInt32, UInt32) = (0, 0)
        try driver.check(
            "cuMemcpyDtoHAsync", driver.table.cuMemcpyDtoHAsync?(&numbers, address, 8, nil))
        try driver.check("cuStreamSynchronize", driver.table.cuStreamSynchronize?(nil))
        return (Int(numbers.0), Int(numbers.1))
    }

    /// A kernel by name, allowed to use so much shared memory.
    func function(_ name: String, sharedBytes: Int) throws(MartletError) -> martlet_cu_handle {
        var function: martlet_cu_handle?
        let result = driver.table.cuModuleGetFunction?(&function, handle, name)
        if result != 0 {
            throw driver.failure("cuModuleGetFunction", result ?? 999).adding("kernel", name)
        }
        guard let function else { throw driver.failure("cuModuleGetFunction", 999) }
        if sharedBytes > 48 << 10 {
            // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            try driver.check(
                "cuFuncSetAttribute",
                driver.table.cuFuncSetAttribute?(function, 8, Int32(clamping: sharedBytes)))
        }
        // CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: the same for all kernels, so that none waits
        // for a change.
        try driver.check("cuFuncSetAttribute", driver.table.cuFuncSetAttribute?(function, 9, 100))
        return function
    }
}
