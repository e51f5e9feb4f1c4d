// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Writes result files whole or not at all; devices and pipes in place.
enum OutputFile {
    /// What a path leads to, links followed.
    private enum Place {
        /// A regular file or nothing yet: made beside it, then renamed; permissions stay.
        case file(String, permissions: mode_t?)
        /// A device or a pipe.
        case stream
        /// A standard stream of this program, under whatever name.
        case standard(Int32)
    }

    /// Finds out before the work whether a file can be made.
    ///
    /// - Throws: `MartletError` `.io` naming the folder.
    static func check(_ path: String) throws {
        guard !path.isEmpty else {
            throw MartletError(.invalidArgument, "the name of a file to write is empty")
        }
        guard !FileStatus.isFolder(path) else {
            throw MartletError(
                .io, "cannot write '\(path)': it is a folder", mend: "Name a file in it")
        }
        let written: Bool
        switch place(path) {
        case .file(let target, _):
            let folder = target.lastIndex(of: "/").map { String(target[..<$0]) } ?? "."
            written = access(folder.isEmpty ? "/" : folder, W_OK | X_OK) == 0
        case .stream: written = access(path, W_OK) == 0
        case .standard: written = true
        }
        guard written else {
            throw MartletError(
                .io, "cannot write \(path): \(String(cString: strerror(errno)))",
                mend: errno == ENOENT
                    ? "Create the folder first" : "Name a folder that can be written")
        }
    }

    /// Finds out before the work whether results would replace each other or what they are made of.
    ///
    /// - Parameters:
    ///   - paths: Files to write; nil for those that are not wanted.
    ///   - sources: Models and inputs: files, or folders whose files are left alone; nil for none.
    /// - Throws: `MartletError` `.invalidArgument` naming the file.
    static func checkApart(_ paths: [String?], from sources: [String?]) throws {
        // The files of a folder may be links, as they are in the hub's cache.
        let own = sources.compactMap { $0 }.flatMap { source in
            ([source] + ModelFinder.entries(source).map { "\(source)/\($0)" })
                .map { (name: source, place: resolved($0)) }
        }
        var seen: Set<String> = []
        for path in paths.compactMap({ $0 }) {
            guard case .file(let target, _) = place(path) else { continue }
            let place = resolved(target)
            guard seen.insert(place).inserted else {
                throw MartletError(
                    .invalidArgument, "\(path) is named for two results", mend: "Name two files")
            }
            let isThere = access(place, F_OK) == 0
            for source in own
            where place == source.place || isThere && place.hasPrefix(source.place + "/") {
                throw MartletError(
                    .invalidArgument, "\(path) would be written over: it belongs to \(source.name)",
                    mend: "Name another file")
            }
        }
    }

    /// The one name of a file; of one that is not there yet, in the folder's.
    private static func resolved(_ path: String) -> String {
        func real(_ path: String) -> String? {
            guard let name = realpath(path, nil) else { return nil }
            defer { free(name) }
            return String(cString: name)
        }
        if let name = real(path) { return name }
        guard let slash = path.lastIndex(of: "/") else { return (real(".") ?? ".") + "/" + path }
        return (real(String(path[...slash])) ?? String(path[..<slash])) + path[slash...]
    }

    /// Where a path leads, for files that are replaced whole: a link stays, what it names is replaced.
    ///
    /// - Throws: `MartletError` `.io` for a device or a pipe, which cannot be replaced.
    static func replaceable(_ path: String) throws -> String {
        guard case .file(let target, _) = place(path) else {
            throw MartletError(
                .io, "cannot write \(path): it is no regular file", mend: "Name another file")
        }
        return target
    }

    /// Writes to a temporary file beside the path, then renames it; in place where there is no file.
    ///
    /// - Throws: `MartletError` `.io`; nothing new stays at the path then.
    static func write(_ bytes: [UInt8], to path: String) throws {
        func failure(_ what: String) -> MartletError {
            MartletError(.io, "cannot \(what) \(path): \(String(cString: strerror(errno)))")
        }
        switch place(path) {
        case .standard(let descriptor):
            guard put(bytes, descriptor) else { throw failure("write") }
        case .stream:
            let descriptor = open(path, O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw failure("open") }
            defer { close(descriptor) }
            guard put(bytes, descriptor) else { throw failure("write") }
        case .file(let target, let permissions):
            let partial = "\(target).partial-\(getpid())"
            Interrupt.watch(folderOf: target)
            let descriptor = open(
                partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, permissions ?? 0o644)
            guard descriptor >= 0 else { throw failure("create") }
            if let permissions { fchmod(descriptor, permissions) }
            var isWhole = put(bytes, descriptor)
            // The first error is the one to tell.
            let reason = errno
            if close(descriptor) != 0, isWhole { isWhole = false } else { errno = reason }
            guard isWhole, rename(partial, target) == 0 else {
                let error = failure("write")
                unlink(partial)
                throw error
            }
        }
    }

    private static func place(_ path: String) -> Place {
        var status = stat()
        guard stat(path, &status) == 0 else { return .file(followed(path), permissions: nil) }
        // Only names of streams: a file that standard output also goes to is still a file.
        if path.hasPrefix("/dev/") || path.hasPrefix("/proc/") {
            for descriptor: Int32 in [1, 2] {
                var other = stat()
                if fstat(descriptor, &other) == 0, other.st_dev == status.st_dev,
                    other.st_ino == status.st_ino
                {
                    return .standard(descriptor)
                }
            }
        }
        guard status.st_mode & S_IFMT == S_IFREG else { return .stream }
        return .file(FileStatus.resolved(path), permissions: status.st_mode & 0o777)
    }

    /// What a link names that leads nowhere yet; any other path as it is.
    private static func followed(_ path: String) -> String {
        var path = path
        // As many links as the system itself follows.
        for _ in 0..<40 {
            var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
            let count = buffer.withUnsafeMutableBytes { bytes in
                bytes.bindMemory(to: CChar.self).baseAddress.map {
                    readlink(path, $0, bytes.count)
                } ?? 0
            }
            guard count > 0 else { return path }
            let target = String(decoding: buffer[..<count], as: UTF8.self)
            let folder = path.lastIndex(of: "/").map { path[...$0] } ?? ""
            path = target.hasPrefix("/") ? target : String(folder) + target
        }
        return path
    }

    /// Waits for room where a descriptor that does not block has none, as `errno` says; false for any other failure.
    static func waited(for descriptor: Int32) -> Bool {
        guard errno == EAGAIN || errno == EWOULDBLOCK else { return false }
        var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&entry, 1, -1) > 0 || errno == EINTR
    }

    /// Writes all bytes; false with `errno` set if that failed.
    private static func put(_ bytes: [UInt8], _ descriptor: Int32) -> Bool {
        bytes.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                let part = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 24))
                #if canImport(Glibc)
                let count = Glibc.write(descriptor, part.baseAddress, part.count)
                #elseif canImport(Musl)
                let count = Musl.write(descriptor, part.baseAddress, part.count)
                #else
                let count = Darwin.write(descriptor, part.baseAddress, part.count)
                #endif
                if count < 0, errno == EINTR || waited(for: descriptor) { continue }
                guard count > 0 else { return false }
                rest = rest.dropFirst(count)
            }
            return true
        }
    }
}

/// NumPy's array files.
enum NPY {
    /// A matrix of f32 rows as version 1.0 of the format.
    static func matrix(_ rows: [[Float]]) -> [UInt8] {
        array(rows.flatMap { $0 }, shape: [rows.count, rows.first?.count ?? 0])
    }

    /// An f32 array in row-major order.
    static func array(_ values: [Float], shape: [Int]) -> [UInt8] {
        let sizes = shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? "," : "")
        var header = "{'descr': '<f4', 'fortran_order': False, 'shape': (\(sizes)), }"
        // Magic, version and length take 10 bytes; data starts at a multiple of 64.
        let padding = (64 - (10 + header.utf8.count + 1) % 64) % 64
        header += String(repeating: " ", count: padding) + "\n"
        var bytes: [UInt8] = [0x93] + Array("NUMPY".utf8) + [1, 0]
        bytes += [UInt8(header.utf8.count & 0xff), UInt8(header.utf8.count >> 8)]
        bytes += Array(header.utf8)
        values.withUnsafeBytes { bytes += $0 }
        return bytes
    }
}
