// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Testing

@Suite struct RepositoryPullTests {
    private let folder = TemporaryFolder()
    private let model = FakeRepository.sharded()

    private func server(_ repository: FakeRepository? = nil) async throws -> LoopbackServer {
        let repository = repository ?? model
        return try await LoopbackServer { request, _ in repository.answer(request) }
    }

    private func expectWhole(_ path: String, _ repository: FakeRepository? = nil) throws {
        #expect(Disk.names(in: path) == FakeRepository.needed)
        for name in FakeRepository.needed {
            #expect(try contents("\(path)/\(name)") == (repository ?? model).files[name])
        }
    }

    @Test(arguments: [FakeRepository.huggingFace, FakeRepository.modelScope])
    func fetchesWhatIsNeededAndNothingElse(reference: ModelReference) async throws {
        let server = try await server()
        let hub = folder.hub(server.endpoint)
        #expect(try hub.lookup(reference) == nil)
        let log = EventLog()
        let pulled = try await hub.pull(reference, observe: log.observer)
        try expectWhole(pulled.path)
        #expect(pulled.byteCount == model.neededByteCount)
        #expect(FakeRepository.fetched(server).sorted() == FakeRepository.needed)
        #expect(server.requests.count == FakeRepository.needed.count + 1)
        #expect(try hub.lookup(reference) == pulled.path)
        #expect(log.progress.last?.byteCount == model.neededByteCount)
        #expect(log.progress.last?.totalByteCount == model.neededByteCount)
        #expect(log.fileNames.sorted() == FakeRepository.needed)
        // Weights come last, so that a folder that has them is complete.
        #expect(log.fileNames.suffix(3).allSatisfy { $0.hasPrefix("model-0000") })
        #expect(hub.list().map(\.byteCount) == [model.neededByteCount])
        #expect(hub.list().map(\.description) == [reference.description])

        let again = try await hub.pull(reference)
        #expect(again.source == "cache")
        #expect(again.path == pulled.path)
        #expect(server.requests.count == FakeRepository.needed.count + 2)
        await server.stop()
        #expect(try await hub.pull(reference).path == pulled.path)
        #expect(try hub.remove(reference) == model.neededByteCount)
        #expect(try hub.lookup(reference) == nil)
    }

    @Test func laysModelScopeOutAsItsOwnPackageDoes() async throws {
        let server = try await server()
        let hub = folder.hub(server.endpoint)
        let pulled = try await hub.pull(FakeRepository.modelScope)
        #expect(
            pulled.path
                == "\(folder.path)/.cache/modelscope/models/Owner--Model/snapshots/master")
        await server.stop()
    }

    @Test func asksForEachFileWhereAMirrorListsNamesOnly() async throws {
        var bare = model
        bare.listsMetadata = false
        let server = try await server(bare)
        let pulled = try await folder.hub(server.endpoint).pull(FakeRepository.huggingFace)
        try expectWhole(pulled.path)
        #expect(server.requests.count { $0.method == .HEAD } == FakeRepository.needed.count)
        await server.stop()
    }

    /// Four bodies are left hanging: a fifth is not asked for, and a second pull resumes all four.
    @Test(.timeLimit(.minutes(10))) func fetchesFourSideBySideAndResumesThem() async throws {
        var large = model
        for index in 0..<6 {
            large.files["model-0000\(index + 1)-of-00006.safetensors"] = randomBytes(
                300_000, seed: UInt64(60 + index))
        }
        let names = (1...6).map { "model-0000\($0)-of-00006.safetensors" }
        let map = names.map { "\"\($0)\": \"\($0)\"" }.joined(separator: ", ")
        large.files["model.safetensors.index.json"] = Array("{\"weight_map\": {\(map)}}".utf8)
        let repository = large
        let isHanging = Flag()
        isHanging.set()
        let server = try await LoopbackServer { request, _ in
            var reply = repository.answer(request)
            if request.method == .GET, request.path.contains("-of-00006"), isHanging.isSet {
                reply.holdAfter = 100_000
            }
            return reply
        }
        func started() -> Int { FakeRepository.fetched(server).count { $0.contains("-of-00006") } }
        let hub = folder.hub(server.endpoint)
        let work = Task { try await hub.pull(FakeRepository.huggingFace) }
        while started() < 4 || partialByteCount() < 400_000 {
            try await Task.sleep(for: .milliseconds(5))
        }
        try await Task.sleep(for: .milliseconds(100))
        #expect(started() == 4)
        work.cancel()
        await #expect(throws: CancellationError.self) { try await work.value }
        #expect(try hub.lookup(FakeRepository.huggingFace) == nil)
        isHanging.clear()
        let pulled = try await hub.pull(FakeRepository.huggingFace)
        for name in names {
            #expect(try contents("\(pulled.path)/\(name)") == repository.files[name])
        }
        let ranges = server.requests.compactMap { $0.headers.first(name: "Range") }
        #expect(ranges == [String](repeating: "bytes=100000-", count: 4))
        await server.stop()
    }

    private func partialByteCount() -> Int {
        let blobs = "\(folder.cache.folder(FakeRepository.name))/blobs"
        return Disk.names(in: blobs).filter { $0.hasSuffix(".incomplete") }
            .compactMap { Disk.entry("\(blobs)/\($0)")?.byteCount }.reduce(0, +)
    }

    @Test func survivesCutsAndBusyServers() async throws {
        let model = model
        let server = try await LoopbackServer { request, index in
            if index == 0 || index % 5 == 3 {
                return .init(status: .tooManyRequests, headers: [("Retry-After", "0")])
            }
            var reply = model.answer(request)
            if request.method == .GET, reply.body.count > 150_000, index % 2 == 0 {
                reply.cutAfter = 60_000
            }
            return reply
        }
        let log = EventLog()
        let pulled = try await folder.hub(server.endpoint).pull(
            FakeRepository.huggingFace, observe: log.observer)
        try expectWhole(pulled.path)
        #expect(log.retryCount > 1)
        await server.stop()
    }

    @Test func bytesThatDifferEndThePull() async throws {
        let model = model
        let server = try await LoopbackServer { request, _ in
            var reply = model.answer(request)
            if request.method == .GET, request.path.contains("00002-of-00003") {
                reply.body[1000] ^= 4
            }
            return reply
        }
        let hub = folder.hub(server.endpoint)
        let error = await failure { try await hub.pull(FakeRepository.huggingFace) }
        #expect(error?.code == .corrupt)
        #expect(error?.message.contains("model-00002-of-00003.safetensors") == true)
        #expect(try hub.lookup(FakeRepository.huggingFace) == nil)
        await server.stop()
    }

    @Test func tokensStayWithTheirSites() async throws {
        let server = try await server()
        let hub = folder.hub(
            server.endpoint, token: "hf_secret",
            environment: ["MODELSCOPE_API_TOKEN": "ms_secret"])
        func headers() -> [String] { server.requests.flatMap { $0.headers.map(\.value) } }
        _ = try await hub.pull(FakeRepository.modelScope)
        #expect(headers().contains("Bearer ms_secret"))
        #expect(headers().contains("m_session_id=ms_secret"))
        #expect(!headers().contains { $0.contains("hf_secret") })
        let count = headers().count
        _ = try await hub.pull(FakeRepository.huggingFace)
        #expect(headers().contains("Bearer hf_secret"))
        #expect(!headers().dropFirst(count).contains { $0.contains("ms_secret") })
        await server.stop()
    }

    @Test func offlineNeedsAWholeModel() async throws {
        let server = try await server()
        _ = try await folder.hub(server.endpoint).pull(FakeRepository.huggingFace)
        let offline = folder.hub(server.endpoint, environment: ["HF_HUB_OFFLINE": "1"])
        #expect(try await offline.pull(FakeRepository.huggingFace).source == "cache")
        let shard = "Owner/Model:model-00002-of-00003.safetensors"
        _ = try offline.remove(try offline.reference(shard))
        let error = await failure { try await offline.pull(FakeRepository.huggingFace) }
        #expect(error?.description.contains("HF_HUB_OFFLINE") == true)
        await server.stop()
    }

    @Test(.enabled("mounting is not permitted here") { SmallDisk.isPermitted })
    func saysHowMuchSpaceAllFilesNeed() async throws {
        let disk = try SmallDisk(at: "\(folder.path)/small", megabytes: 1)
        defer { disk.unmount() }
        let large = FakeRepository.sharded(400_000)
        let server = try await server(large)
        let hub = folder.hub(server.endpoint, environment: ["HF_HUB_CACHE": "\(disk.path)/hub"])
        let error = await failure { try await hub.pull(FakeRepository.huggingFace) }
        #expect(error?.code == .io)
        #expect(error?.message.contains(" bytes, the disk of \(disk.path)/hub") == true)
        #expect(FakeRepository.fetched(server) == ["model.safetensors.index.json"])
        await server.stop()
    }
}
