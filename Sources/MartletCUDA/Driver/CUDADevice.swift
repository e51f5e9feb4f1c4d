// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
package import MartletCore

/// One GPU, with the context that all engines of the process share.
///
/// `@unchecked Sendable`: the context's handle never changes.
package final class CUDADevice: @unchecked Sendable {
    /// The driver.
    package let driver: CUDADriver
    /// Number among the visible devices.
    package let ordinal: Int
    /// Product name.
    package let name: String
    /// Compute capability as one number, such as 90.
    package let capability: Int
    /// Streaming multiprocessors.
    package let smCount: Int
    /// Memory in all, in bytes.
    package let memoryByteCount: Int
    /// Shared memory that one block may ask for, in bytes.
    package let sharedMemoryPerBlock: Int
    private let device: martlet_cu_device
    private let context: martlet_cu_handle

    /// Opens a device and makes its context current on this thread.
    ///
    /// - Throws: `MartletError` of the failed call, or `.device` for an ordinal that does not exist.
    package init(_ driver: CUDADriver, ordinal: Int = 0) throws(MartletError) {
        let table = driver.table
        try driver.check("cuInit", table.cuInit?(0))
        var count: Int32 = 0
        try driver.check("cuDeviceGetCount", table.cuDeviceGetCount?(&count))
        guard ordinal >= 0, ordinal < Int(count) else {
            throw MartletError(
                .device, "there is no GPU \(ordinal), only \(count)", mend: CUDADriver.mend(100))
        }
        var device: martlet_cu_device = 0
        try driver.check("cuDeviceGet", table.cuDeviceGet?(&device, Int32(ordinal)))
        var bytes = [CChar](repeating: 0, count: 256)
        try driver.check("cuDeviceGetName", table.cuDeviceGetName?(&bytes, 255, device))
        func attribute(_ number: Int32) throws(MartletError) -> Int {
            var value: Int32 = 0
            try driver.check(
                "cuDeviceGetAttribute", table.cuDeviceGetAttribute?(&value, number, device))
            return Int(value)
        }
        // CU_DEVICE_ATTRIBUTE_...: COMPUTE_CAPABILITY_MAJOR, _MINOR, MULTIPROCESSOR_COUNT,
        // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.
        capability = try attribute(75) * 10 + attribute(76)
        smCount = try attribute(16)
        sharedMemoryPerBlock = try attribute(97)
        var total = 0
        try driver.check("cuDeviceTotalMem", table.cuDeviceTotalMem?(&total, device))
        memoryByteCount = total
        var context: martlet_cu_handle?
        try driver.check(
            "cuDevicePrimaryCtxRetain", table.cuDevicePrimaryCtxRetain?(&context, device))
        guard let context else { throw driver.failure("cuDevicePrimaryCtxRetain", 999) }
        self.driver = driver
        self.ordinal = ordinal
        self.device = device
        self.context = context
        name = bytes.withUnsafeBytes {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        try makeCurrent()
    }

    deinit { _ = driver.table.cuDevicePrimaryCtxRelease?(device) }

    /// Makes the context current on the calling thread, as every thread must that calls the driver.
    package func makeCurrent() throws(MartletError) {
        try driver.check("cuCtxSetCurrent", driver.table.cuCtxSetCurrent?(context))
    }

    /// Gives something back, on whatever thread its owner ends.
    func release(_ body: (martlet_cuda) -> Void) {
        _ = driver.table.cuCtxSetCurrent?(context)
        body(driver.table)
    }

    /// Free bytes of device memory at present.
    package func freeMemory() throws(MartletError) -> Int {
        var (free, total) = (0, 0)
        try driver.check("cuMemGetInfo", driver.table.cuMemGetInfo?(&free, &total))
        return free
    }

    /// Devices that are visible; the driver must be initialised.
    package static func count(_ driver: CUDADriver) throws(MartletError) -> Int {
        var count: Int32 = 0
        try driver.check("cuDeviceGetCount", driver.table.cuDeviceGetCount?(&count))
        return Int(count)
    }

    /// Version of CUDA that the driver supports, such as 13000.
    package static func driverVersion(_ driver: CUDADriver) throws(MartletError) -> Int {
        var version: Int32 = 0
        try driver.check("cuDriverGetVersion", driver.table.cuDriverGetVersion?(&version))
        return Int(version)
    }
}
