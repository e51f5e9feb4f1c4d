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

/// `martlet pull` as a process of its own: killed, interrupted, out of space.
@Suite(.serialized) struct PullProgramTests {
    private let folder = TemporaryFolder()
    private let fake = FakeHub(content: randomBytes(4_000_000, seed: 21), pieceSize: 20_000)
    private let name = "\(FakeHub.repository):\(FakeHub.path)"

    /// Kills at random moments; whatever was there, the next pull ends with the right content.
    @Test(.timeLimit(.minutes(10)), arguments: ["Owner/Model-GGUF:model.Q4_1.gguf", "Owner/Model"])
    func aKilledPullGoesOn(name: String) async throws {
        let fake = fake
        var model = FakeRepository.sharded(1_000_000)
        model.pieceSize = fake.pieceSize
        let repository = model
        let server = try await LoopbackServer { request, _ in
            let isFile = request.path.contains(FakeHub.repository)
            return isFile ? fake.answer(request) : repository.answer(request)
        }
        let hub = folder.hub(server.endpoint)
        let reference = try hub.reference(name)
        /// What the cache shows must be whole.
        func found() throws -> Bool {
            guard let path = try hub.lookup(reference) else { return false }
            if path.hasSuffix(FakeHub.path) {
                #expect(try contents(path) == fake.content)
            } else {
                for file in FakeRepository.needed {
                    #expect(try contents("\(path)/\(file)") == repository.files[file])
                }
            }
            let blobs = Disk.names(in: "\(folder.cache.folder(hub.list()[0].repository))/blobs")
            #expect(blobs.allSatisfy { !$0.hasSuffix(".incomplete") })
            return true
        }
        /// Bytes that have arrived.
        @Sendable func byteCount() -> Int {
            Disk.names(in: folder.cache.root).filter { $0.hasPrefix("models--") }.reduce(0) {
                sum, name in
                let blobs = "\(folder.cache.root)/\(name)/blobs"
                let sizes = Disk.names(in: blobs).map {
                    Disk.entry("\(blobs)/\($0)")?.byteCount ?? 0
                }
                return sizes.reduce(sum, +)
            }
        }
        var generator = SeededGenerator(state: 22)
        var killCount = 0
        for turn in 0..<200 where killCount < 20 {
            try Disk.removeTree(folder.cache.root)
            let moment = Int.random(in: 0...2_800_000, using: &generator)
            let child = try folder.startPull(name, endpoint: server.endpoint)
            let wasRunning = try await child.kill { byteCount() >= moment }
            if wasRunning { killCount += 1 }
            _ = try found()
            let again = try await folder.startPull(name, endpoint: server.endpoint).wait()
            #expect(again == 0, "turn \(turn), killed at \(moment) bytes: \(folder.errorText)")
            #expect(try found())
        }
        #expect(killCount == 20)
        // Some of the second runs found a part and asked for the rest only.
        #expect(server.requests.count { $0.headers.contains(name: "Range") } >= 5)
        await server.stop()
    }

    @Test(arguments: [true, false]) func aFileTooLargeIsOneError(isAnnounced: Bool) async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in
            var reply = fake.answer(request)
            if !isAnnounced {
                reply.headers.removeAll { $0.0 == "X-Linked-Size" }
                reply.isChunked = true
            }
            return reply
        }
        let child = try folder.startPull(name, endpoint: server.endpoint, limit: 2000)
        #expect(try await child.wait() == MartletError.Code.io.exitCode)
        #expect(folder.errorText.contains("ulimit -f"), "\(folder.errorText)")
        #expect(folder.errorText.split(separator: "\n").count { $0.hasPrefix("error:") } == 1)
        #expect(folder.cache.list().isEmpty)
        #expect(server.requests.count == (isAnnounced ? 1 : 2))
        await server.stop()
    }

    /// The disk is full before the pull starts, or fills up while it runs.
    @Test(.enabled("mounting is not permitted here") { SmallDisk.isPermitted }, arguments: [0, 1])
    func aFullDiskIsOneError(fillingAtRequest moment: Int) async throws {
        let disk = try SmallDisk(at: "\(folder.path)/small", megabytes: 6)
        defer { disk.unmount() }
        let fake = fake
        let server = try await LoopbackServer { request, index in
            if index == moment { try? disk.fill(leaving: 2_000_000) }
            return fake.answer(request)
        }
        let cache = "\(disk.path)/hub"
        let full = try folder.startPull(name, endpoint: server.endpoint, cache: cache)
        #expect(try await full.wait() == MartletError.Code.io.exitCode)
        #expect(folder.errorText.contains("Free some space"), "\(folder.errorText)")
        #expect(folder.errorText.contains(moment == 0 ? "needs 4000000 bytes" : "No space left"))
        #expect(folder.errorText.split(separator: "\n").count { $0.hasPrefix("error:") } == 1)
        #expect(HubCache(root: cache).list().isEmpty)
        try disk.empty()
        #expect(
            try await folder.startPull(name, endpoint: server.endpoint, cache: cache).wait() == 0)
        let path = try #require(HubCache(root: cache).find(fake.file))
        #expect(try contents(path) == fake.content)
        await server.stop()
    }
}
