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

/// Lines of standard input as they come.
struct InputLines {
    /// Longest line in bytes.
    private static let limit = 1 << 26
    private var buffer: [UInt8] = []
    private var lineCount = 0
    private var isAtEnd = false

    /// The next line without its end; nil behind the last.
    ///
    /// - Throws: `MartletError` `.corrupt` for a line that is no UTF-8, `.limitExceeded`, `.io`.
    mutating func next() throws -> String? {
        var searched = 0
        while true {
            if let end = buffer[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                return try take(end, dropping: 1)
            }
            searched = buffer.count
            guard !isAtEnd else {
                return buffer.isEmpty ? nil : try take(buffer.count, dropping: 0)
            }
            guard searched <= Self.limit else {
                throw MartletError(
                    .limitExceeded, "a line of standard input is longer than \(Self.limit) bytes")
            }
            try fill()
        }
    }

    private mutating func take(_ end: Int, dropping count: Int) throws -> String {
        var line = Array(buffer[..<end])
        buffer.removeFirst(end + count)
        lineCount += 1
        if count == 1, line.last == UInt8(ascii: "\r") { line.removeLast() }
        return try TextFile.text(line, name: "line \(lineCount) of standard input", .corrupt)
    }

    private mutating func fill() throws {
        // What stands in for a closed input cannot be read.
        guard fcntl(0, F_GETFL) & O_ACCMODE != O_WRONLY else {
            isAtEnd = true
            return
        }
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        let count = read(0, &chunk, chunk.count)
        if count < 0, errno == EINTR { return }
        guard count >= 0 else {
            throw MartletError(
                .io, "cannot read standard input: \(String(cString: strerror(errno)))")
        }
        isAtEnd = count == 0
        buffer += chunk[..<count]
    }
}
