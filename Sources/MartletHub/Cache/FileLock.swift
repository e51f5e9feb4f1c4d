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

/// An exclusive advisory lock (`flock`) on a file, released when dropped or when the process dies.
///
/// Python's `huggingface_hub` takes the same lock on the same file, so both wait for each other.
package final class FileLock: Sendable {
    private let descriptor: Int32

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Gives the lock back; it is taken again by nobody through this value.
    package func release() { _ = flock(descriptor, LOCK_UN) }

    /// Takes the lock, waiting for its holder.
    ///
    /// - Parameters:
    ///   - path: The lock file; made with its folders if absent, never removed.
    ///   - waiting: Called once if another process holds it.
    /// - Throws: `MartletError` `.io`; `CancellationError` while waiting.
    package static func acquire(_ path: String, waiting: () -> Void) async throws -> FileLock {
        if let parent = Disk.parent(of: path) { try Disk.makeFolder(parent) }
        var isFirst = true
        while true {
            let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o666)
            guard descriptor >= 0 else { throw Disk.failure("open lock", path, errno) }
            let lock = FileLock(descriptor: descriptor)
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                guard errno == EWOULDBLOCK || errno == EINTR else {
                    throw Disk.failure("lock", path, errno)
                }
                if isFirst { waiting() }
                isFirst = false
                try await Task.sleep(for: .milliseconds(100))
            }
            // Python may remove the file when it lets go: a lock on what has no name guards nothing.
            var held = stat()
            var named = stat()
            if fstat(descriptor, &held) == 0, stat(path, &named) == 0, held.st_ino == named.st_ino {
                return lock
            }
        }
    }
}
