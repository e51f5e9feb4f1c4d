// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A file system of a few megabytes.
struct SmallDisk {
    let path: String

    static let isPermitted = {
        let folder = TemporaryFolder()
        guard let disk = try? SmallDisk(at: "\(folder.path)/probe", megabytes: 1) else {
            return false
        }
        disk.unmount()
        return true
    }()

    init(at path: String, megabytes: Int) throws {
        try Disk.makeFolder(path)
        self.path = path
        #if os(Linux)
        guard mount("tmpfs", path, "tmpfs", 0, "size=\(megabytes)m") == 0 else {
            throw Disk.failure("mount", path, errno)
        }
        #else
        throw MartletError(.unsupported, "no tmpfs here")
        #endif
    }

    func unmount() {
        #if os(Linux)
        umount2(path, Int32(MNT_DETACH))
        #endif
    }

    /// Takes all space but so many bytes.
    func fill(leaving byteCount: Int) throws {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return }
        let count = Int(status.f_bavail) * Int(status.f_frsize) - byteCount
        let file = try DiskFile(writing: "\(path)/filler")
        try [UInt8](repeating: 1, count: max(0, count)).withUnsafeBytes { try file.write($0) }
    }

    func empty() throws { try Disk.remove("\(path)/filler") }
}
