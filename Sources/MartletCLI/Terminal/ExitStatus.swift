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

/// How the program ends; `MartletError.Code` gives each failure its number.
enum ExitStatus {
    /// Every exit code and what it says, as `martlet help` and the documentation print them.
    static let meanings: [(code: Int32, meaning: String)] = [
        (0, "success"),
        (MartletError.Code.checkFailed.exitCode, "a check failed (selftest, eval --min-rouge1)"),
        (MartletError.Code.invalidArgument.exitCode, "wrong command, option or value"),
        (MartletError.Code.notFound.exitCode, "a file, model, rule or tensor does not exist"),
        (MartletError.Code.corrupt.exitCode, "a file is damaged"),
        (MartletError.Code.unsupported.exitCode, "the input asks for what Martlet does not do"),
        (MartletError.Code.limitExceeded.exitCode, "a limit is exceeded (context, batch, memory)"),
        (MartletError.Code.network.exitCode, "a transfer failed"),
        (MartletError.Code.io.exitCode, "a file cannot be read or written"),
        (MartletError.Code.device.exitCode, "the device failed"),
        (MartletError.Code.internalError.exitCode, "a defect of Martlet"),
        (129, "the terminal went away"), (130, "interrupted (Ctrl-C)"),
        (readerGone, "the reader of the output went away, as in martlet run ... | head -1"),
        (143, "terminated"),
    ]

    /// Exit code where nobody reads standard output any more: 128 + SIGPIPE.
    static let readerGone: Int32 = 141

    /// The exit codes, one a line.
    static let table = meanings.map { code, meaning in
        let digits = String(code)
        return "  " + digits + String(repeating: " ", count: 5 - digits.utf8.count) + meaning
    }.joined(separator: "\n")

    /// Ends the program in the ordinary way.
    static func leave(_ code: Int32) -> Never {
        RawTerminal.leave()
        fflush(nil)
        #if canImport(Glibc)
        Glibc.exit(code)
        #elseif canImport(Musl)
        Musl.exit(code)
        #else
        Darwin.exit(code)
        #endif
    }

    /// Ends the program because standard output takes no more; unfinished files go.
    static func leave(outputError number: Int32) -> Never {
        Interrupt.removePartialFiles()
        RawTerminal.leave()
        guard number != EPIPE else { _exit(readerGone) }
        Console.error(
            "error: cannot write to standard output: \(String(cString: strerror(number)))")
        _exit(MartletError.Code.io.exitCode)
    }
}

/// Standard input, output and error as the program finds them.
enum StandardStreams {
    /// Fills those that the caller closed, so that no other file gets their numbers.
    ///
    /// Reading or writing them fails as it does on a closed one.
    static func open() {
        for descriptor in Int32(0)...2 where fcntl(descriptor, F_GETFD) < 0 && errno == EBADF {
            #if canImport(Glibc)
            _ = Glibc.open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
            #elseif canImport(Musl)
            _ = Musl.open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
            #else
            _ = Darwin.open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
            #endif
        }
    }

    /// Whether standard input comes from a file or a pipe.
    static var inputIsRedirected: Bool { isatty(0) != 1 }
}
