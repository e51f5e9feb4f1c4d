// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#endif

/// The C library's heap.
enum HeapMemory {
    /// Gives pages that hold nothing back to the system: what making or reading an engine used.
    ///
    /// The function is no part of the C standard, so it is looked up; without it nothing happens.
    static func trim() {
        #if canImport(Glibc)
        guard let function = dlsym(nil, "malloc_trim") else { return }
        typealias Trim = @convention(c) (Int) -> Int32
        _ = unsafeBitCast(function, to: Trim.self)(0)
        #endif
    }
}
