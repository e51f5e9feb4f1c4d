// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Runs a program and waits for it without blocking a thread.
enum ChildProcess {
    /// Runs a program to its end.
    ///
    /// Standard input is empty; standard output and error both go to the given place, since a
    /// program's chatter must not mix with data on our standard output.
    ///
    /// - Parameters:
    ///   - program: Path of the executable.
    ///   - folder: Working folder.
    ///   - outputFile: Takes output and error; nil passes them to our standard error.
    /// - Returns: Exit status; 128 + signal if a signal ended it.
    /// - Throws: `MartletError` `.io` if it cannot start; `CancellationError`, after ending it.
    static func run(
        _ program: String, _ arguments: [String], environment: [String: String], folder: String,
        outputFile: String?
    ) async throws -> Int32 {
        let child = try start(program, arguments, environment, folder, outputFile)
        do {
            while true {
                if let status = try poll(child) { return status }
                try await Task.sleep(for: .milliseconds(20))
            }
        } catch {
            try? await end(child)
            throw error
        }
    }

    private static func start(
        _ program: String, _ arguments: [String], _ environment: [String: String], _ folder: String,
        _ outputFile: String?
    ) throws -> pid_t {
        #if canImport(Darwin)
        var actions: posix_spawn_file_actions_t?
        var attributes: posix_spawnattr_t?
        #else
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        #endif
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }

        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        if let outputFile {
            posix_spawn_file_actions_addopen(
                &actions, 2, outputFile, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        }
        posix_spawn_file_actions_adddup2(&actions, 2, 1)
        // Signals that we ignore or block would stay so in the child.
        var defaults = sigset_t()
        sigemptyset(&defaults)
        for signal in [SIGPIPE, SIGXFSZ, SIGINT, SIGTERM] { sigaddset(&defaults, signal) }
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        var blocked = sigset_t()
        sigemptyset(&blocked)
        posix_spawnattr_setsigmask(&attributes, &blocked)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGDEF) | Int16(POSIX_SPAWN_SETSIGMASK))

        var child: pid_t = 0
        // Not every C library can spawn into another folder, every shell can. The folder matters:
        // `python3 -m` looks for modules there first, so it must be an empty one.
        let shell = ["/bin/sh", "-c", #"cd "$1" && shift && exec "$@""#, "sh", folder, program]
        let result = withStrings(shell + arguments) { arguments in
            withStrings(environment.map { "\($0.key)=\($0.value)" }.sorted()) { environment in
                posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environment)
            }
        }
        guard result == 0 else { throw Disk.failure("start", program, result) }
        return child
    }

    private static func poll(_ child: pid_t) throws -> Int32? {
        var status: Int32 = 0
        let result = waitpid(child, &status, WNOHANG)
        if result == 0 || (result < 0 && errno == EINTR) { return nil }
        guard result == child else { throw Disk.failure("wait for", "process \(child)", errno) }
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }

    /// Ends a child: politely, then after two seconds by force.
    private static func end(_ child: pid_t) async throws {
        kill(child, SIGTERM)
        for turn in 0..<400 {
            if try poll(child) != nil { return }
            if turn == 200 { kill(child, SIGKILL) }
            usleep(10_000)
        }
    }

    private static func withStrings<Result>(
        _ strings: [String],
        _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        let pointers = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
            capacity: strings.count + 1)
        for (index, string) in strings.enumerated() {
            (pointers + index).initialize(to: strdup(string))
        }
        (pointers + strings.count).initialize(to: nil)
        defer {
            for index in strings.indices { free(pointers[index]) }
            pointers.deallocate()
        }
        return body(pointers)
    }
}
