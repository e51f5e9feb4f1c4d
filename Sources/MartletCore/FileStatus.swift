// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// What the file system says about a path.
package enum FileStatus {
    private static func status(_ path: String) -> stat? {
        var result = stat()
        return stat(path, &result) == 0 ? result : nil
    }

    /// Whether there is anything at the path.
    package static func exists(_ path: String) -> Bool { status(path) != nil }

    /// Whether the path is a folder.
    package static func isFolder(_ path: String) -> Bool {
        status(path).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
    }

    /// Size in bytes and time of last change in nanoseconds; nil if there is no such file.
    package static func stamp(_ path: String) -> (byteCount: Int, modified: Int)? {
        status(path).map {
            #if canImport(Darwin)
            let time = $0.st_mtimespec
            #else
            let time = $0.st_mtim
            #endif
            return (Int($0.st_size), Int(time.tv_sec) &* 1_000_000_000 &+ Int(time.tv_nsec))
        }
    }

    /// Size, times and place on the disk: another content has another one, unless somebody forged it.
    package static func identity(_ path: String) -> String? {
        status(path).map {
            #if canImport(Darwin)
            let (modified, changed) = ($0.st_mtimespec, $0.st_ctimespec)
            #else
            let (modified, changed) = ($0.st_mtim, $0.st_ctim)
            #endif
            let times = [modified, changed].map { "\($0.tv_sec).\($0.tv_nsec)" }
            return "\($0.st_size) \(times.joined(separator: " ")) \($0.st_ino)"
        }
    }

    /// The last component of a path.
    package static func name(_ path: String) -> String {
        String(path.split(separator: "/").last ?? Substring(path))
    }

    /// The path without symbolic links and relative parts, or itself if it does not exist.
    package static func resolved(_ path: String) -> String {
        guard let real = realpath(path, nil) else { return path }
        defer { free(real) }
        return String(cString: real)
    }
}
