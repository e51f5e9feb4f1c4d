// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Output: data on standard output, everything else on standard error.
enum Console {
    /// Writes data without a line end; ends the program where standard output takes no more.
    static func write(_ text: String) {
        send(text, to: 1)
    }

    /// Writes a line of data.
    static func line(_ text: String = "") { send(text + "\n", to: 1) }

    /// Writes a line for the person at the terminal.
    static func error(_ text: String) { send(text + "\n", to: 2) }

    /// Writes to the person at the terminal without a line end.
    static func status(_ text: String) { send(text, to: 2) }

    /// Whether standard error is a terminal.
    static var isInteractive: Bool { isatty(2) == 1 }

    private static func send(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { buffer in
            var rest = UnsafeRawBufferPointer(buffer)
            while rest.count > 0 {
                #if canImport(Glibc)
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
                #elseif canImport(Musl)
                let count = Musl.write(descriptor, rest.baseAddress, rest.count)
                #else
                let count = Darwin.write(descriptor, rest.baseAddress, rest.count)
                #endif
                if count < 0, errno == EINTR || OutputFile.waited(for: descriptor) { continue }
                guard count > 0 else {
                    if descriptor == 1 { ExitStatus.leave(outputError: errno) }
                    return
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
        }
    }
}
