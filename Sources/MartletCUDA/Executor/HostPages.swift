// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Page-locked memory of the host that KV pages of paused requests are copied to.
///
/// `@unchecked Sendable`: an address; the scheduler's block operations decide which page holds what.
final class HostPages: @unchecked Sendable {
    let pageCount: Int
    private let pageBytes: Int
    private let memory: PinnedMemory

    private init(_ memory: consuming PinnedMemory, pageBytes: Int, pageCount: Int) {
        self.memory = memory
        self.pageBytes = pageBytes
        self.pageCount = pageCount
    }

    /// As many pages as the system locks, up to a number: half as many after each refusal.
    ///
    /// - Returns: Nil where not a single page is locked.
    /// - Throws: `MartletError` of any other failure of the driver's.
    static func lock(
        _ device: CUDADevice, pageBytes: Int, upTo limit: Int
    ) throws(MartletError) -> HostPages? {
        var count = limit
        while count > 0 {
            do throws(MartletError) {
                let memory = try PinnedMemory(device, byteCount: count * pageBytes)
                return HostPages(memory, pageBytes: pageBytes, pageCount: count)
            } catch {
                guard error.code == .limitExceeded else { throw error }
                count /= 2
            }
        }
        return nil
    }

    /// Where a page lies; the number was checked with the step record.
    func page(_ number: Int32) -> UnsafeMutableRawPointer { memory.base + Int(number) * pageBytes }
}
