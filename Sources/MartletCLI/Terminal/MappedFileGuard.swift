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

/// A file that is cut short while it is mapped: the read that finds nothing ends the program with one line.
enum MappedFileGuard {
    nonisolated(unsafe) private static var previous = sigaction()
    private static let isTold = Atomic(false)

    /// Takes the signal over; faults outside mapped files go to whoever had it.
    static func install() {
        // The first look makes what a handler must not.
        _ = (MappedRanges.path(at: nil), isTold.load(ordering: .relaxed))
        var action = sigaction()
        let handler:
            @convention(c) (Int32, UnsafeMutablePointer<siginfo_t>?, UnsafeMutableRawPointer?)
                -> Void = { _, information, _ in MappedFileGuard.handle(information) }
        #if canImport(Glibc)
        action.__sigaction_handler.sa_sigaction = handler
        #elseif canImport(Musl)
        action.__sa_handler.sa_sigaction = handler
        #else
        action.__sigaction_u.__sa_sigaction = handler
        #endif
        action.sa_flags = Int32(truncatingIfNeeded: SA_SIGINFO)
        sigaction(SIGBUS, &action, &previous)
    }

    private static func handle(_ information: UnsafeMutablePointer<siginfo_t>?) {
        #if canImport(Glibc)
        let address = information?.pointee._sifields._sigfault.si_addr
        #elseif canImport(Musl)
        let address = information?.pointee.__si_fields.__sigfault.si_addr
        #else
        let address = information?.pointee.si_addr
        #endif
        guard let path = MappedRanges.path(at: address) else {
            // Happens again at once, and goes there.
            sigaction(SIGBUS, &previous, nil)
            return
        }
        // Several threads may find out at the same time; one tells.
        guard !isTold.exchange(true, ordering: .relaxed) else { while true { pause() } }
        say("error: ")
        _ = write(2, path, strlen(path))
        say(
            " was cut short while it was in use. Put a new file in its place by renaming, as mv does\n"
        )
        Interrupt.removePartialFiles()
        RawTerminal.leave()
        _exit(MartletError.Code.io.exitCode)
    }

    private static func say(_ text: StaticString) {
        _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
    }
}
