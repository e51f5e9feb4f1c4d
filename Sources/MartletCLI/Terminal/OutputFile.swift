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

/// Writes result files whole or not at all.
enum OutputFile {
    /// Finds out before the work whether a file can be made.
    ///
    /// - Throws: `MartletError` `.io` naming the folder.
    static func check(_ path: String) throws {
        let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        guard !path.isEmpty else {
            throw MartletError(.invalidArgument, "the name of a file to write is empty")
        }
        guard !FileStatus.isFolder(path) else {
            throw MartletError(
                .io, "cannot write '\(path)': it is a folder", mend: "Name a file in it")
        }
        guard access(folder.isEmpty ? "/" : folder, W_OK | X_OK) == 0 else {
            throw MartletError(
                .io, "cannot write \(path): \(String(cString: strerror(errno)))",
                mend: errno == ENOENT
                    ? "Create the folder first" : "Name a folder that can be written")
        }
    }

    /// Writes to a temporary file beside the path, then renames it.
    ///
    /// - Throws: `MartletError` `.io`; nothing new stays at the path then.
    static func write(_ bytes: [UInt8], to path: String) throws {
        let partial = "\(path).partial-\(getpid())"
        Interrupt.watch(folderOf: path)
        func failure(_ what: String) -> MartletError {
            let reason = String(cString: strerror(errno))
            unlink(partial)
            return MartletError(.io, "cannot \(what) \(path): \(reason)")
        }
        let descriptor = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure("create") }
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { buffer in
                pwrite(
                    descriptor, buffer.baseAddress.map { $0 + written }, buffer.count - written,
                    off_t(written))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = failure("write")
                close(descriptor)
                throw error
            }
            written += count
        }
        guard close(descriptor) == 0, rename(partial, path) == 0 else { throw failure("write") }
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
