// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Dispatch
import MartletHub

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The built program, which lies beside the test bundle.
private let program: String = {
    let bundle = CommandLine.arguments.first { $0.contains(".xctest") } ?? ""
    let parts = bundle.split(separator: "/", omittingEmptySubsequences: false)
    let end = parts.firstIndex { $0.hasSuffix(".xctest") } ?? 0
    return parts[..<end].joined(separator: "/") + "/martlet"
}()

extension TemporaryFolder {
    /// Starts `martlet pull` with its cache in this folder.
    ///
    /// - Parameters:
    ///   - limit: Longest file in blocks of 512 bytes, as `ulimit -f` takes it.
    func startPull(
        _ model: String, endpoint: String, limit: Int? = nil, cache: String? = nil
    ) throws -> ChildProcess {
        var environment = [
            "HOME": path, "HF_ENDPOINT": endpoint, "PATH": "\(path)/bin:/usr/bin:/bin",
            "HF_HUB_CACHE": cache ?? self.cache.root, "SWIFT_BACKTRACE": "enable=no",
        ].merging(Self.patience) { asked, _ in asked }
        environment["LD_LIBRARY_PATH"] = ProcessEnvironment.current()["LD_LIBRARY_PATH"]
        let limit = limit.map { "ulimit -f \($0); " } ?? ""
        return try ChildProcess(
            "/bin/sh", ["-c", limit + #"exec "$0" "$@""#, program, "pull", model],
            environment: environment, folder: path, output: "\(path)/output",
            error: "\(path)/error")
    }

    /// What the program said.
    var errorText: String { Disk.shortText("\(path)/error") ?? "" }
}

extension ChildProcess {
    /// Kills the program as soon as a condition holds.
    ///
    /// - Returns: Whether it was still running.
    func kill(when condition: @escaping @Sendable () -> Bool) async throws -> Bool {
        let hasEnded = Flag()
        let status = Task {
            defer { hasEnded.set() }
            return try await wait()
        }
        await withCheckedContinuation { done in
            // A thread of its own: those of tasks may be busy with other tests.
            DispatchQueue(label: "kill").async {
                while !hasEnded.isSet, !condition() { usleep(500) }
                if !hasEnded.isSet { self.send(SIGKILL) }
                done.resume()
            }
        }
        return try await status.value == 128 + SIGKILL
    }
}
