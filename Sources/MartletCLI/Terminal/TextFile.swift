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

    /// The text of a file or a pipe.
    ///
    /// - Throws: `MartletError` `.notFound`, `.io`, `.corrupt` for bytes that are no UTF-8, or
    ///   `.limitExceeded` for a longer text.
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
    /// - Throws: `MartletError` `.io`, `.corrupt`, `.limitExceeded`.
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
            if count == 0 { return try text(content, name: name, .corrupt) }
            content += chunk[..<count]
            guard content.count <= maxByteCount else {
                throw MartletError(
                    .limitExceeded, "\(name) is longer than \(maxByteCount) bytes")
            }
        }
    }

    /// Bytes as text: what a user wrote is read as it is, or not at all.
    ///
    /// - Throws: `MartletError` of the code given, naming the first byte that is no UTF-8.
    static func text(
        _ bytes: [UInt8], name: String, _ code: MartletError.Code
    ) throws -> String {
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        var decoder = UTF8()
        var rest = bytes.makeIterator()
        var place = 0
        while case .scalarValue(let scalar) = decoder.decode(&rest) {
            place += UTF8.width(scalar)
        }
        let byte = place < bytes.count ? bytes[place] : 0
        throw MartletError(
            code, "\(name) is no UTF-8 text: byte \(place) is 0x\(String(byte, radix: 16))",
            mend: "Convert it, as with: iconv -f latin1 -t utf-8")
    }
}

/// The words of the command line.
enum ArgumentText {
    /// Refuses words that are no text, which would be read as others.
    ///
    /// - Throws: `MartletError` `.invalidArgument` naming the word and its byte.
    static func check() throws {
        for index in 1..<max(Int(CommandLine.argc), 1) {
            guard let word = CommandLine.unsafeArgv[index],
                String(validatingCString: word) == nil
            else { continue }
            let bytes = UnsafeRawBufferPointer(start: word, count: strlen(word))
            _ = try TextFile.text(Array(bytes), name: "argument \(index)", .invalidArgument)
        }
    }
}
