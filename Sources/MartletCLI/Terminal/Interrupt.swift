// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Ctrl-C, SIGTERM and SIGHUP: unfinished files go, one line is printed, the exit code is 128 + signal.
enum Interrupt {
    /// Where the signal handler writes; set once, before the handler is installed.
    nonisolated(unsafe) private static var pipeEnd: Int32 = -1
    private static let folders = Mutex<Set<String>>([])
    private static let action = Mutex<(@Sendable () -> Void)?>(nil)

    /// Takes the signals over, unless they are ignored.
    ///
    /// - Throws: `MartletError` `.limitExceeded` where the system has no thread or descriptor left.
    static func install() throws {
        // A write beyond the file size limit, or to a reader that is gone, fails; it does not kill.
        signal(SIGXFSZ, SIG_IGN)
        signal(SIGPIPE, SIG_IGN)
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            throw MartletError(
                .limitExceeded, "cannot make a pipe: \(String(cString: strerror(errno)))",
                mend: "Raise ulimit -n")
        }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        pipeEnd = ends[1]
        let readEnd = ends[0]
        // The thread comes first: a signal that nobody listens for would be lost. Its stack is as large as
        // those of the threads to come, which wait for ever where the system has none.
        guard DetachedThread.start(stackBytes: 8 << 20, { listen(readEnd) }) else {
            throw MartletError(
                .limitExceeded, "the system has no thread left",
                mend: "Raise ulimit -u and ulimit -v, or the container's limits")
        }
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let previous = signal(number) { number in
                var byte = UInt8(truncatingIfNeeded: number)
                _ = write(Interrupt.pipeEnd, &byte, 1)
            }
            if unsafeBitCast(previous, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) {
                signal(number, SIG_IGN)
            }
        }
    }

    /// Does what each signal asks for, until the program ends.
    private static func listen(_ readEnd: Int32) {
        while true {
            var byte: UInt8 = 0
            while read(readEnd, &byte, 1) != 1 { if errno != EINTR { return } }
            if byte == UInt8(SIGINT), let action = action.withLock({ $0 }) {
                action()
                continue
            }
            cancelRunning()
            removePartialFiles()
            RawTerminal.leave()
            // Below a progress bar or a half line of an answer.
            Console.error(isatty(2) == 1 ? "\ninterrupted" : "interrupted")
            _exit(128 + Int32(byte))
        }
    }

    /// Sets what Ctrl-C does; nil lets it end the program.
    static func onInterrupt(_ new: (@Sendable () -> Void)?) { action.withLock { $0 = new } }

    /// Notes that files are being made beside this path.
    static func watch(folderOf path: String) {
        let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        watch(folder: folder.isEmpty ? "/" : folder)
    }

    /// Notes that files are being made in this folder.
    static func watch(folder: String) { folders.withLock { _ = $0.insert(folder) } }

    /// Removes what this process has not finished.
    static func removePartialFiles() {
        let mark = ".partial-\(getpid())"
        for folder in folders.withLock({ $0 }) {
            guard let directory = opendir(folder) else { continue }
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                    String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name.hasSuffix(mark) || name.contains(mark + "-") { unlink("\(folder)/\(name)") }
            }
            closedir(directory)
        }
    }
}
