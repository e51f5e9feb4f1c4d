// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Which file is mapped where, for a signal handler that has only an address.
package enum MappedRanges {
    private struct Entry {
        var start: UInt = 0
        var end: UInt = 0
        var path: UnsafeMutablePointer<CChar>?
    }

    /// More are not noted; their files are not named.
    private static let capacity = 1024
    nonisolated(unsafe) private static let entries: UnsafeMutablePointer<Entry> = {
        let entries = UnsafeMutablePointer<Entry>.allocate(capacity: capacity)
        entries.initialize(repeating: Entry(), count: capacity)
        return entries
    }()
    private static let lock = Mutex(())

    static func add(_ base: UnsafeRawPointer, count: Int, path: String) {
        lock.withLock { _ in
            for index in 0..<capacity where entries[index].end == 0 {
                // Names stay until their place is used again: a handler may be reading one.
                free(entries[index].path)
                entries[index].path = strdup(path)
                entries[index].start = UInt(bitPattern: base)
                entries[index].end = UInt(bitPattern: base) + UInt(count)
                return
            }
        }
    }

    static func remove(_ base: UnsafeRawPointer) {
        lock.withLock { _ in
            for index in 0..<capacity
            where entries[index].end != 0 && entries[index].start == UInt(bitPattern: base) {
                entries[index].end = 0
                return
            }
        }
    }

    /// The path of the file that is mapped at an address, without locks and memory; nil if none is.
    package static func path(at address: UnsafeRawPointer?) -> UnsafePointer<CChar>? {
        let address = UInt(bitPattern: address)
        for index in 0..<capacity
        where entries[index].start <= address && address < entries[index].end {
            return UnsafePointer(entries[index].path)
        }
        return nil
    }
}
