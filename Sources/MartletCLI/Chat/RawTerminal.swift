// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A terminal that hands over keys instead of lines, and shows what is typed only when told to.
enum RawTerminal {
    /// The terminal's own settings while it is raw.
    private static let saved = Mutex<termios?>(nil)

    /// Whether keys can be read and the cursor can be moved: a terminal on both ends, not a dumb one.
    static var isUsable: Bool {
        let name = getenv("TERM").map { String(cString: $0) } ?? ""
        return isatty(0) == 1 && isatty(2) == 1 && !name.isEmpty && name != "dumb"
    }

    /// Begins to take keys, Ctrl-C among them; `leave` must follow before the program ends.
    ///
    /// - Returns: Whether the terminal agreed.
    static func enter() -> Bool {
        guard change(signals: false) else { return false }
        Console.status("\u{1b}[?2004h")
        return true
    }

    /// Lets Ctrl-C be a signal again; what is typed meanwhile waits unseen for the next `enter`.
    static func pause() {
        Console.status("\u{1b}[?2004l")
        _ = change(signals: true)
    }

    /// Gives the terminal its own settings back.
    static func leave() {
        saved.withLock { settings in
            guard var own = settings else { return }
            settings = nil
            Console.status("\u{1b}[?2004l")
            tcsetattr(0, TCSADRAIN, &own)
        }
    }

    private static func change(signals: Bool) -> Bool {
        saved.withLock { settings in
            var own = termios()
            if let settings {
                own = settings
            } else {
                guard tcgetattr(0, &own) == 0 else { return false }
                settings = own
            }
            own.c_lflag &= ~tcflag_t(ICANON | ECHO | IEXTEN | (signals ? 0 : ISIG))
            own.c_iflag &= ~tcflag_t(IXON | ICRNL)
            // What was typed ahead stays.
            return tcsetattr(0, TCSADRAIN, &own) == 0
        }
    }

    /// Columns of the terminal.
    static var columnCount: Int {
        var size = winsize()
        guard ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 1 else { return 80 }
        return Int(size.ws_col)
    }

    /// The next byte typed.
    ///
    /// - Parameter milliseconds: How long to wait; nil for ever.
    /// - Returns: nil at the end of input, or when the time is over.
    static func byte(within milliseconds: Int32? = nil) -> UInt8? {
        var byte: UInt8 = 0
        while true {
            var descriptor = pollfd(fd: 0, events: Int16(POLLIN), revents: 0)
            let ready = poll(&descriptor, 1, milliseconds ?? -1)
            if ready < 0, errno == EINTR { continue }
            guard ready > 0 else { return nil }
            let count = read(0, &byte, 1)
            if count < 0, errno == EINTR { continue }
            return count == 1 ? byte : nil
        }
    }
}
