// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

extension CUDADevice {
    /// Bytes per second that copies within the device's memory move, read and written ones together: the
    /// fastest of ten copies of up to 1 GB.
    ///
    /// - Throws: `MartletError` if less than 8 MB of the memory are free, or the driver fails.
    package func copyBandwidth() throws(MartletError) -> Double {
        try makeCurrent()
        let size = min(1 << 30, try freeMemory() / 4) & ~0xff
        guard size >= 2 << 20 else {
            throw MartletError(
                .limitExceeded, "too little GPU memory is free to measure its bandwidth",
                mend: "Lower --kv-cache-memory or --memory-fraction")
        }
        let memory = try DeviceMemory(self, byteCount: 2 * size)
        let stream = try CUDAStream(self)
        let start = try CUDAEvent(self)
        let end = try CUDAEvent(self)
        var fastest = Double.infinity
        for _ in 0..<10 {
            try start.record(on: stream)
            try stream.copy(
                to: memory.address + UInt64(size), from: memory.address, count: size)
            try end.record(on: stream)
            try end.synchronize()
            fastest = min(fastest, try end.seconds(since: start))
        }
        return 2 * Double(size) / fastest
    }
}
