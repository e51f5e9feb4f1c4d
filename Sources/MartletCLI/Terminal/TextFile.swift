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

/// Text that a user hands over: files, pipes, standard input.
enum TextFile {
    /// Longest text.
    static let maxByteCount = 1 << 30

    /// The text of a file or a pipe; damaged UTF-8 becomes U+FFFD.
    ///
    /// - Throws: `MartletError` `.notFound`, `.io`, or `.limitExceeded` for a longer text.
    static func read(_ path: String) throws -> String {
        guard !path.isEmpty else {
            throw MartletError(.invalidArgument, "the name of a file is empty")
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            let isMissing = errno == ENOENT || errno == ENOTDIR
            throw MartletError(
                isMissing ? .notFound : .io,
                "cannot open \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        return try read(descriptor, name: path)
    }

    /// What is left of standard input; a closed one is empty.
    ///
    /// - Throws: `MartletError` `.io`, `.limitExceeded`.
    static func readStandardInput() throws -> String {
        // What stands in for a closed input cannot be read.
        guard fcntl(0, F_GETFL) & O_ACCMODE != O_WRONLY else { return "" }
        return try read(0, name: "standard input")
    }

    private static func read(_ descriptor: Int32, name: String) throws -> String {
        var content: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            #if canImport(Glibc)
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            #elseif canImport(Musl)
            let count = Musl.read(descriptor, &chunk, chunk.count)
            #else
            let count = Darwin.read(descriptor, &chunk, chunk.count)
            #endif
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                throw MartletError(
                    .io, "cannot read \(name): \(String(cString: strerror(errno)))")
            }
            if count == 0 { return String(decoding: content, as: UTF8.self) }
            content += chunk[..<count]
            guard content.count <= maxByteCount else {
                throw MartletError(
                    .limitExceeded, "\(name) is longer than \(maxByteCount) bytes")
            }
        }
    }
}
