// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// File operations with errors a user can act on.
package enum Disk {
    /// What a path leads to, symbolic links followed.
    package struct Entry: Sendable, Hashable {
        /// Whether it is a folder.
        package let isDirectory: Bool
        /// Whether it is a regular file.
        package let isFile: Bool
        /// Length in bytes.
        package let byteCount: Int
        /// Last change, seconds since 1970.
        package let modified: Int
    }

    /// The failure of a system call, by its `errno`.
    package static func failure(_ action: String, _ path: String, _ number: Int32) -> MartletError {
        let reason = strerror(number).map { String(cString: $0) } ?? "error \(number)"
        return MartletError(
            [ENOENT, ENOTDIR].contains(number) ? .notFound : .io,
            "cannot \(action) \(path): \(reason)", mend: mend(number), context: ["file": path])
    }

    /// What mends the failure of a system call, by its `errno`; nil if nothing is known.
    package static func mend(_ number: Int32) -> String? {
        switch number {
        case ENOSPC, EDQUOT: "Free some space, or set HF_HOME to a larger disk"
        case EFBIG: "Raise the file size limit (ulimit -f unlimited)"
        case EROFS, EACCES, EPERM: "Set HF_HOME to a folder that can be written"
        default: nil
        }
    }

    /// Refuses to begin what the disk or the file size limit would stop.
    ///
    /// - Parameters:
    ///   - byteCount: Bytes still to write.
    ///   - largest: Length of the largest file in bytes.
    ///   - folder: An existing folder on the disk.
    ///   - name: What is to be written, for the message.
    /// - Throws: `MartletError` `.io` naming what is needed and what there is.
    package static func reserve(
        _ byteCount: Int, largest: Int, at folder: String, for name: String
    ) throws {
        if let free = freeByteCount(at: folder), byteCount > free {
            throw MartletError(
                .io, "\(name) needs \(byteCount) bytes, the disk of \(folder) has \(free) free",
                mend: mend(ENOSPC), context: ["file": folder])
        }
        var limits = rlimit()
        guard getrlimit(fileSizeLimit, &limits) == 0, largest > limits.rlim_cur else { return }
        throw MartletError(
            .io, "\(name) has a file of \(largest) bytes, the limit is \(limits.rlim_cur)",
            mend: mend(EFBIG), context: ["file": folder])
    }

    /// What the path leads to; nil if nothing is there or a link is broken.
    package static func entry(_ path: String) -> Entry? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Entry(
            isDirectory: status.st_mode & S_IFMT == S_IFDIR,
            isFile: status.st_mode & S_IFMT == S_IFREG, byteCount: Int(status.st_size),
            modified: Int(status.modificationTime))
    }

    /// Whether the path itself is a symbolic link.
    package static func isLink(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
    }

    /// Text of a symbolic link; nil if the path is none.
    package static func linkTarget(_ path: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { bytes in
            bytes.bindMemory(to: CChar.self).baseAddress.map { readlink(path, $0, 4096) } ?? -1
        }
        guard count > 0, count < 4096 else { return nil }
        return String(decoding: buffer[..<count], as: UTF8.self)
    }

    /// Names in a folder, sorted, without `.` and `..`; empty if it cannot be read.
    package static func names(in folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let item = readdir(stream) {
            let name = withUnsafePointer(to: &item.pointee.d_name) {
                String(cString: UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Makes a folder and its parents.
    ///
    /// - Throws: `MartletError` `.io`.
    package static func makeFolder(_ path: String) throws {
        if let entry = entry(path) {
            guard entry.isDirectory else { throw failure("make folder", path, ENOTDIR) }
            return
        }
        if let parent = parent(of: path) { try makeFolder(parent) }
        guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
            throw failure("make folder", path, errno)
        }
    }

    /// The folder a path lies in; nil for a bare name or the root.
    package static func parent(of path: String) -> String? {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return nil }
        return String(path[..<slash])
    }

    /// Removes a file or a symbolic link; absent is fine.
    ///
    /// - Throws: `MartletError` `.io`.
    package static func remove(_ path: String) throws {
        guard unlink(path) == 0 || errno == ENOENT else { throw failure("remove", path, errno) }
    }

    /// Removes a folder and all in it, without following links; absent is fine.
    ///
    /// - Throws: `MartletError` `.io`.
    package static func removeTree(_ path: String) throws {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFDIR else { return try remove(path) }
        for name in names(in: path) { try removeTree(path + "/" + name) }
        guard rmdir(path) == 0 || errno == ENOENT else { throw failure("remove", path, errno) }
    }

    /// Removes a folder if it is empty.
    package static func removeIfEmpty(_ path: String) { _ = rmdir(path) }

    /// Renames within one file system; an existing file is replaced atomically.
    ///
    /// - Throws: `MartletError` `.io`.
    package static func rename(_ source: String, to target: String) throws {
        #if canImport(Glibc)
        let result = Glibc.rename(source, target)
        #elseif canImport(Musl)
        let result = Musl.rename(source, target)
        #else
        let result = Darwin.rename(source, target)
        #endif
        guard result == 0 else { throw failure("rename \(source) to", target, errno) }
    }

    /// Makes the names in a folder durable, as far as the file system can.
    package static func syncFolder(_ path: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        _ = fsync(descriptor)
        close(descriptor)
    }

    /// Bytes that an ordinary user may still write where the path lies; nil if unknown.
    private static func freeByteCount(at path: String) -> Int? {
        var status = statvfs()
        guard statvfs(path, &status) == 0 else { return nil }
        let product = UInt64(status.f_bavail).multipliedReportingOverflow(
            by: UInt64(status.f_frsize))
        return product.overflow ? nil : Int(clamping: product.partialValue)
    }

    /// A small text file, trimmed of white space; nil if absent or above 64 KiB.
    package static func shortText(_ path: String) -> String? {
        guard let entry = entry(path), entry.isFile, entry.byteCount <= 65_536,
            let view = try? MappedFile.map(path)
        else { return nil }
        let text = view.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        return String(text.drop(while: \.isWhitespace).trimmingSuffix(while: \.isWhitespace))
    }
}

#if canImport(Glibc)
private let fileSizeLimit = __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
#else
private let fileSizeLimit = RLIMIT_FSIZE
#endif

extension Substring {
    func trimmingSuffix(while predicate: (Character) -> Bool) -> Substring {
        var slice = self
        while let last = slice.last, predicate(last) { slice.removeLast() }
        return slice
    }
}

extension stat {
    fileprivate var modificationTime: time_t {
        #if canImport(Darwin)
        st_mtimespec.tv_sec
        #else
        st_mtim.tv_sec
        #endif
    }
}
