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

/// A program that we started: a process group of its own, which ends when this process does.
package final class ChildProcess: Sendable {
    /// Number of the process and of its group.
    package let number: Int32
    /// Is never written to: the system closes it when we die, however that happens, and the guard
    /// at the other end then ends the group.
    private let lifeline: Int32

    /// Changes folder, leaves a guard behind that waits for the lifeline's end, becomes the program.
    ///
    /// Not every C library can spawn into another folder, every shell can. The folder matters:
    /// `python3 -m` looks for modules there first, so it must be an empty one.
    private static let script = #"""
        cd "$1" || exit 126
        shift
        exec 3<&0
        { read -r _ <&3; kill 0; } &
        exec "$@" </dev/null 3<&-
        """#

    /// Starts a program with an empty standard input.
    ///
    /// - Parameters:
    ///   - program: Path of the executable.
    ///   - folder: Working folder.
    ///   - output: Takes standard output; nil passes it to our standard error, since a program's
    ///     chatter must not mix with data on our standard output.
    ///   - error: Takes standard error; nil passes it to ours.
    /// - Throws: `MartletError` `.io`.
    package init(
        _ program: String, _ arguments: [String], environment: [String: String], folder: String,
        output: String?, error: String?
    ) throws {
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

        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Disk.failure("start", program, errno) }
        defer { close(ends[0]) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        // Our standard error first: the second line may replace it.
        posix_spawn_file_actions_adddup2(&actions, 2, 1)
        for (descriptor, path) in [(Int32(1), output), (2, error)] {
            guard let path else { continue }
            posix_spawn_file_actions_addopen(
                &actions, descriptor, path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        }
        // Signals that we ignore or block would stay so in the child.
        var defaults = sigset_t()
        sigemptyset(&defaults)
        for signal in [SIGPIPE, SIGXFSZ, SIGINT, SIGTERM, SIGHUP] { sigaddset(&defaults, signal) }
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        var blocked = sigset_t()
        sigemptyset(&blocked)
        posix_spawnattr_setsigmask(&attributes, &blocked)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = [POSIX_SPAWN_SETSIGDEF, POSIX_SPAWN_SETSIGMASK, POSIX_SPAWN_SETPGROUP]
        posix_spawnattr_setflags(&attributes, flags.reduce(0) { $0 | Int16($1) })

        var child: pid_t = 0
        let words = ["/bin/sh", "-c", Self.script, "sh", folder, program] + arguments
        let result = withStrings(words) { words in
            withStrings(environment.map { "\($0.key)=\($0.value)" }.sorted()) { environment in
                posix_spawn(&child, "/bin/sh", &actions, &attributes, words, environment)
            }
        }
        guard result == 0 else {
            close(ends[1])
            throw Disk.failure("start", program, result)
        }
        number = child
        lifeline = ends[1]
    }

    deinit { close(lifeline) }

    /// Waits for the end without blocking a thread; a cancelled task ends the program's group:
    /// politely, then after two seconds by force.
    ///
    /// - Returns: Exit status; 128 + signal if a signal ended it.
    /// - Throws: `MartletError` `.io`, `CancellationError`.
    package func wait() async throws -> Int32 {
        do {
            while true {
                if let status = try poll() { return status }
                try await Task.sleep(for: .milliseconds(10))
            }
        } catch {
            end()
            throw error
        }
    }

    private func end() {
        for signal in [SIGTERM, SIGKILL] {
            kill(-number, signal)
            for _ in 0..<200 {
                do { if try poll() != nil { return } } catch { return }
                usleep(10_000)
            }
        }
    }

    /// Sends a signal to the program alone, not to its group.
    package func send(_ signal: Int32) { kill(number, signal) }

    /// The exit status as `wait` returns it; nil while the program runs.
    ///
    /// - Throws: `MartletError` `.io`, also after a status was returned.
    private func poll() throws -> Int32? {
        var status: Int32 = 0
        let result = waitpid(number, &status, WNOHANG)
        if result == 0 || (result < 0 && errno == EINTR) { return nil }
        guard result == number else { throw Disk.failure("wait for", "process \(number)", errno) }
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }
}

private func withStrings<Result>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    let list = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(
        capacity: strings.count + 1)
    for (index, string) in strings.enumerated() { (list + index).initialize(to: strdup(string)) }
    (list + strings.count).initialize(to: nil)
    defer {
        for index in strings.indices { free(list[index]) }
        list.deallocate()
    }
    return body(list)
}
