// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif
import MartletCore

/// Zeroed memory from the system that costs nothing until it is touched.
///
/// `@unchecked Sendable`: the address never changes; users agree on who writes which part.
final class MappedArena: @unchecked Sendable {
    /// First byte, page aligned.
    let base: UnsafeMutableRawPointer
    /// Bytes.
    let count: Int

    /// Reserves memory.
    ///
    /// - Throws: `MartletError` `.limitExceeded` if the system refuses, naming the purpose.
    init(count: Int, purpose: String, mend: String? = nil) throws {
        let length = max(count, 1)
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        guard count >= 0, count < 1 << 46,
            let memory = mmap(nil, length, PROT_READ | PROT_WRITE, flags, -1, 0),
            memory != MAP_FAILED
        else {
            throw MartletError(
                .limitExceeded, "cannot reserve \(count) bytes for \(purpose)", mend: mend)
        }
        base = memory
        self.count = length
    }

    deinit { munmap(base, count) }
}
