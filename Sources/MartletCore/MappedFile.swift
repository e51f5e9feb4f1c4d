// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Maps files into memory, read only.
public enum MappedFile {
    /// Maps a whole file.
    ///
    /// - Parameters:
    ///   - path: A regular file; one that is cut short later ends the program where it is read, see
    ///     `MappedRanges`.
    /// - Returns: A view of all its bytes; pages are read on first touch.
    /// - Throws: `MartletError` `.notFound` if there is no such file, `.io` if it cannot be read.
    public static func map(_ path: String) throws -> ByteView {
        // Opening a pipe to look at it would wait for its writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            let code: MartletError.Code = errno == ENOENT || errno == ENOTDIR ? .notFound : .io
            throw MartletError(code, "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw MartletError(.io, "cannot stat \(path): \(String(cString: strerror(errno)))")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw MartletError(.io, "\(path) is not a regular file")
        }
        let count = Int(status.st_size)
        guard count > 0 else { return ByteView() }
        guard let memory = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0),
            memory != MAP_FAILED
        else {
            throw MartletError(.io, "cannot map \(path): \(String(cString: strerror(errno)))")
        }
        MappedRanges.add(memory, count: count, path: path)
        let storage = ByteStorage(base: memory) {
            MappedRanges.remove($0)
            _ = munmap($0, count)
        }
        return ByteView(storage: storage, offset: 0, count: count)
    }
}
