// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The program at a terminal: keys go in, the screen's bytes come out.
final class PseudoTerminal {
    private let descriptor: Int32
    private let process: pid_t
    /// Everything the program has sent.
    var screen: String { String(decoding: bytes, as: UTF8.self) }
    private var bytes: [UInt8] = []

    /// Starts the program in a session of its own, with the terminal as its controlling one.
    init?(_ program: Program, _ arguments: [String], columns: Int = 80) {
        descriptor = open("/dev/ptmx", O_RDWR | O_NOCTTY)
        guard descriptor >= 0, let name = Self.otherEnd(of: descriptor) else { return nil }
        var size = winsize(ws_row: 24, ws_col: UInt16(columns), ws_xpixel: 0, ws_ypixel: 0)
        guard ioctl(descriptor, UInt(TIOCSWINSZ), &size) == 0 else { return nil }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for target in Int32(0)...2 {
            posix_spawn_file_actions_addopen(&actions, target, name, O_RDWR, 0)
        }
        posix_spawn_file_actions_addclose(&actions, descriptor)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        #if canImport(Darwin)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSID))
        #else
        // POSIX_SPAWN_SETSID, which the C library's module does not show.
        posix_spawnattr_setflags(&attributes, 0x80)
        #endif
        let words = [Program.products + "/martlet"] + arguments
        let argv = words.map { strdup($0) } + [nil]
        let environment = program.environment.map { strdup($0) } + [nil]
        defer { for pointer in argv + environment { free(pointer) } }
        var process: pid_t = 0
        guard posix_spawn(&process, words[0], &actions, &attributes, argv, environment) == 0
        else { return nil }
        self.process = process
    }

    deinit { close(descriptor) }

    /// Path of the program's end of the terminal.
    private static func otherEnd(of descriptor: Int32) -> String? {
        #if canImport(Darwin)
        guard grantpt(descriptor) == 0, unlockpt(descriptor) == 0 else { return nil }
        return ptsname(descriptor).map { String(cString: $0) }
        #else
        // TIOCSPTLCK and TIOCGPTN: what unlockpt and ptsname do.
        var lock: Int32 = 0, number: UInt32 = 0
        guard ioctl(descriptor, 0x4004_5431, &lock) == 0,
            ioctl(descriptor, 0x8004_5430, &number) == 0
        else { return nil }
        return "/dev/pts/\(number)"
        #endif
    }

    /// Presses keys.
    func type(_ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    /// How many bytes the program has sent.
    var position: Int { bytes.count }

    /// Waits until the program has sent a text (after the first `offset` bytes of the screen).
    ///
    /// - Returns: Whether it came in time.
    func wait(for text: String, after offset: Int = 0, seconds: Int = 60) -> Bool {
        let wanted = Array(text.utf8)
        for _ in 0..<seconds * 20 {
            if holds(wanted, after: offset) { return true }
            guard read() else { return holds(wanted, after: offset) }
        }
        return false
    }

    // Bytes, because characters join: a line end may be one with what comes before it.
    private func holds(_ text: [UInt8], after offset: Int) -> Bool {
        bytes.dropFirst(offset).indices.contains { bytes[$0...].starts(with: text) }
    }

    /// Reads what there is within 50 ms.
    ///
    /// - Returns: Whether the program still has the terminal open.
    private func read() -> Bool {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        #if canImport(Glibc)
        let ready = Glibc.poll(&poll, 1, 50)
        #elseif canImport(Musl)
        let ready = Musl.poll(&poll, 1, 50)
        #else
        let ready = Darwin.poll(&poll, 1, 50)
        #endif
        guard ready > 0 else { return true }
        var chunk = [UInt8](repeating: 0, count: 4096)
        let count = chunk.withUnsafeMutableBytes { buffer in
            #if canImport(Glibc)
            Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            #elseif canImport(Musl)
            Musl.read(descriptor, buffer.baseAddress, buffer.count)
            #else
            Darwin.read(descriptor, buffer.baseAddress, buffer.count)
            #endif
        }
        guard count > 0 else { return false }
        bytes += chunk[..<count]
        return true
    }

    /// Sends the program a signal.
    func signal(_ number: Int32) { kill(process, number) }

    /// Waits for the end and returns the exit code; 128 + signal if one ended it.
    func finish() -> Int32 {
        // Reads to the end, so that the program cannot wait for room.
        for _ in 0..<20 * 60 { if !read() { break } }
        let status = Program.wait(for: process)
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
    }
}

extension Program {
    /// A variable of the environment.
    static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

    /// Whether a path leads somewhere.
    static func exists(_ path: String) -> Bool { access(path, R_OK) == 0 }

    /// Names in a folder.
    static func list(_ folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
