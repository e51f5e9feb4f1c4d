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

/// A file being written beside its final place, `<path>.partial-<process>-<count>`.
///
/// It takes its name only when complete and on disk; otherwise it is removed.
final class PartialFile {
    let path: String
    let temporaryPath: String
    private var descriptor: Int32

    /// Tells files apart that one process writes for the same place.
    private static let counter = Counter()

    /// Removes what dead processes left, then creates the file.
    init(for path: String) throws {
        self.path = path
        ignoreFileSizeSignal()
        PartialFile.sweep(path)
        temporaryPath = "\(path)\(Self.mark)\(getpid())-\(Self.counter.next())"
        descriptor = open(temporaryPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure("create", errno) }
        // Tells other processes, whatever their process numbering, that the writer lives.
        _ = flock(descriptor, LOCK_EX | LOCK_NB)
    }

    deinit { discard() }

    /// Writes all bytes at an offset.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
        guard descriptor >= 0 else {
            throw MartletError(.internalError, "write to \(path) after it was closed")
        }
        var rest = bytes
        var position = offset
        while let start = rest.baseAddress, rest.count > 0 {
            let written = pwrite(descriptor, start, min(rest.count, 1 << 24), off_t(position))
            if written < 0 {
                if errno == EINTR { continue }
                throw failure("write", errno)
            }
            guard written > 0 else { throw failure("write", ENOSPC) }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            position += written
        }
    }

    /// Brings the content to disk and gives the file its name, replacing what was there.
    func commit() throws {
        while fsync(descriptor) != 0 {
            if errno != EINTR { throw failure("sync", errno) }
        }
        guard rename(temporaryPath, path) == 0 else { throw failure("rename", errno) }
        close(descriptor)
        descriptor = -1
        let folder = open(Self.folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if folder >= 0 {
            // Some file systems cannot sync folders; the file itself is safe by now.
            _ = fsync(folder)
            close(folder)
        }
    }

    /// Removes the file unless it was committed.
    func discard() {
        guard descriptor >= 0 else { return }
        unlink(temporaryPath)
        close(descriptor)
        descriptor = -1
    }

    private func failure(_ verb: String, _ code: Int32) -> MartletError {
        let mend: String? =
            switch code {
            case ENOSPC: "Free space on that disk, or name another place"
            case EDQUOT: "The disk quota is used up: free space, or name another place"
            case EFBIG: "Raise the file size limit (ulimit -f), or name another place"
            case EACCES, EROFS: "Name a folder that can be written"
            case ENOENT where verb == "create": "Create the folder first"
            default: nil
            }
        return MartletError(
            .io, "cannot \(verb) \(path): \(String(cString: strerror(code)))", mend: mend,
            context: ["file": path])
    }

    static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static let mark = ".partial-"

    /// Removes partial files of this path whose writers are gone.
    static func sweep(_ path: String) {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        sweep(folder: folder(of: path)) { $0 == name }
    }

    /// Removes partial files in a folder whose writers are gone.
    ///
    /// - Parameter isIncluded: Decides about the name that a file would have had.
    static func sweep(folder: String, where isIncluded: (String) -> Bool) {
        guard let directory = opendir(folder) else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let found = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let parts = found.components(around: mark), isIncluded(parts.before),
                let process = parts.after.split(separator: "-").first,
                let number = pid_t(process), number > 0, kill(number, 0) != 0, errno == ESRCH
            else { continue }
            let stale = open("\(folder)/\(found)", O_RDWR | O_CLOEXEC | O_NOFOLLOW)
            guard stale >= 0 else { continue }
            if flock(stale, LOCK_EX | LOCK_NB) == 0 { unlink("\(folder)/\(found)") }
            close(stale)
        }
    }
}

extension String {
    /// What stands before and after the last place of a mark; nil without one.
    fileprivate func components(around mark: String) -> (before: String, after: Substring)? {
        var place = endIndex
        while place > startIndex {
            place = index(before: place)
            if self[place...].hasPrefix(mark) {
                return (String(self[..<place]), self[place...].dropFirst(mark.count))
            }
        }
        return nil
    }
}

/// Makes a write beyond the file size limit fail with EFBIG instead of ending the process.
///
/// A handler that the program has set stays.
private func ignoreFileSizeSignal() {
    let previous = signal(SIGXFSZ, SIG_IGN)
    let bits = unsafeBitCast(previous, to: Int.self)
    if bits > 1 { _ = signal(SIGXFSZ, previous) }
}
