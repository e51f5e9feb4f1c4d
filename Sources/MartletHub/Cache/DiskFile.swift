// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// An open file that is written from front to back, closed when dropped.
package struct DiskFile: ~Copyable {
    private let descriptor: Int32
    /// Where it lies, for messages.
    package let path: String

    /// Opens a file for reading and writing, making it if absent.
    ///
    /// - Throws: `MartletError` `.io`.
    package init(writing path: String) throws {
        let opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
        guard opened >= 0 else { throw Disk.failure("write", path, errno) }
        descriptor = opened
        self.path = path
    }

    deinit { close(descriptor) }

    /// Length in bytes.
    package var byteCount: Int {
        var status = stat()
        return fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
    }

    /// Writes all bytes at the current position.
    ///
    /// - Throws: `MartletError` `.io`, naming a full disk as such.
    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            let count = systemWrite(
                descriptor, bytes.baseAddress.map { $0 + done }, bytes.count - done)
            if count < 0 {
                if errno == EINTR { continue }
                throw Disk.failure("write", path, errno)
            }
            done += count
        }
    }

    /// Reads the whole file from the front in pieces of at most 1 MiB; the position ends behind it.
    ///
    /// - Throws: `MartletError` `.io`, or what the closure throws.
    package func readAll(_ piece: (UnsafeRawBufferPointer) throws -> Void) throws {
        guard lseek(descriptor, 0, SEEK_SET) == 0 else {
            throw Disk.failure("seek in", path, errno)
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { buffer.deallocate() }
        while true {
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw Disk.failure("read", path, errno)
            }
            if count == 0 { return }
            try piece(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    /// Empties the file.
    ///
    /// - Throws: `MartletError` `.io`.
    package func truncate() throws {
        guard ftruncate(descriptor, 0) == 0, lseek(descriptor, 0, SEEK_SET) == 0 else {
            throw Disk.failure("truncate", path, errno)
        }
    }

    /// Makes the content durable.
    ///
    /// - Throws: `MartletError` `.io`.
    package func sync() throws {
        guard fsync(descriptor) == 0 || errno == EINVAL else {
            throw Disk.failure("write", path, errno)
        }
    }
}

private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}

/// Writes a small file so that a reader sees the old content or the new, never a part.
///
/// - Parameters:
///   - temporary: Where it lies until it is whole, on the same file system.
/// - Throws: `MartletError` `.io`; the temporary file is removed.
package func writeAtomically(_ text: String, to path: String, by temporary: String) throws {
    do {
        let file = try DiskFile(writing: temporary)
        try file.truncate()
        var text = text
        try text.withUTF8 { try file.write(UnsafeRawBufferPointer($0)) }
        try file.sync()
    } catch {
        try? Disk.remove(temporary)
        throw error
    }
    try Disk.rename(temporary, to: path)
}
