// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Testing

/// What the cache holds after a pull that went well.
func expectSound(_ folder: TemporaryFolder, _ hub: FakeHub, _ model: PulledModel) throws {
    #expect(try contents(model.path) == hub.content)
    #expect(model.byteCount == hub.content.count)
    #expect(folder.blobNames == [hub.name])
    #expect(folder.cache.find(hub.file) == model.path)
    #expect(folder.cache.list().map(\.byteCount) == [hub.content.count])
}

/// The Martlet error of a pull.
func failure<Result>(_ body: () async throws -> Result) async -> MartletError? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error as? MartletError
    }
}

@Suite struct HubPullTests {
    private let folder = TemporaryFolder()
    private let fake = FakeHub(content: randomBytes(300_000, seed: 1))

    @Test func fetchesOnceAndKeepsPythonsLayout() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(server.endpoint)
        #expect(try hub.lookup(FakeHub.reference) == nil)
        let log = EventLog()
        let model = try await hub.pull(FakeHub.reference, observe: log.observer)
        try expectSound(folder, fake, model)
        #expect(model.sha256 == fake.sha256)
        #expect(model.source.hasPrefix("hub Owner/Model-GGUF"))
        let root = folder.cache.folder(FakeHub.repository)
        #expect(model.path == "\(root)/snapshots/\(FakeHub.commit)/\(FakeHub.path)")
        #expect(Disk.linkTarget(model.path) == "../../blobs/\(fake.sha256)")
        #expect(Disk.shortText("\(root)/refs/main") == FakeHub.commit)
        #expect(log.progress.last?.byteCount == fake.content.count)

        let again = try await hub.pull(FakeHub.reference)
        #expect(again.source == "cache")
        #expect(server.requests.map(\.method) == [.HEAD, .GET, .HEAD])
        #expect(try await hub.resolve(FakeHub.reference) == model.path)
        #expect(server.requests.count == 3)
        await server.stop()
        #expect(try await hub.pull(FakeHub.reference).path == model.path)
    }

    @Test func checksSmallFilesByGitsHash() async throws {
        // git hash-object of "hello\n"
        let fake = FakeHub(
            content: Array("hello\n".utf8), etag: "ce013625030ba8dba906f756967f9e9ca394464a")
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let model = try await folder.hub(server.endpoint).pull(FakeHub.reference)
        try expectSound(folder, fake, model)
        await server.stop()
    }

    @Test func resumesAfterCuts() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, index in
            var reply = fake.answer(request)
            if request.method == .GET, index < 4 { reply.cutAfter = 70_000 }
            return reply
        }
        let log = EventLog()
        let model = try await folder.hub(server.endpoint).pull(
            FakeHub.reference, observe: log.observer)
        try expectSound(folder, fake, model)
        // Bytes under way at a cut may be lost, so the exact starts are the connection's affair.
        let starts = server.requests.compactMap { $0.headers.first(name: "Range") }
            .compactMap { Int($0.dropFirst("bytes=".count).dropLast()) }
        #expect(starts.count == 3)
        #expect(starts == starts.sorted() && starts.allSatisfy { $0 > 0 && $0 <= 210_000 })
        #expect(log.retryCount == 3)
        #expect(log.progress.map(\.byteCount) == log.progress.map(\.byteCount).sorted())
        await server.stop()
    }

    @Test func startsAnewWhenARangeIsAnsweredWithAll() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, index in
            guard request.method == .GET else { return fake.answer(request) }
            return .init(body: fake.content, cutAfter: index == 1 ? 100_000 : nil)
        }
        let model = try await folder.hub(server.endpoint).pull(FakeHub.reference)
        try expectSound(folder, fake, model)
        #expect(server.requests.last?.headers.contains(name: "Range") == true)
        await server.stop()
    }

    @Test(arguments: [(429, 0), (503, 0), (500, nil), (504, nil)] as [(Int, Int?)])
    func waitsWhereAServerAsks(status: Int, wait: Int?) async throws {
        let fake = fake
        let server = try await LoopbackServer { request, index in
            guard index == 0 || index == 2 else { return fake.answer(request) }
            return .init(
                status: .init(statusCode: status),
                headers: wait.map { [("Retry-After", String($0))] } ?? [])
        }
        let log = EventLog()
        let model = try await folder.hub(server.endpoint).pull(
            FakeHub.reference, observe: log.observer)
        try expectSound(folder, fake, model)
        #expect(log.retryCount == 2)
        await server.stop()
    }

    @Test func givesUpAfterTheLimit() async throws {
        let server = try await LoopbackServer { _, _ in .init(status: .serviceUnavailable) }
        let error = await failure { try await folder.hub(server.endpoint).pull(FakeHub.reference) }
        #expect(error?.code == .network)
        #expect(server.requests.count == 6)
        await server.stop()
    }

    @Test(arguments: [
        (401, "RepoNotFound", MartletError.Code.network, "HF_TOKEN"),
        (403, "GatedRepo", .network, "licence"),
        (404, "EntryNotFound", .notFound, "has no file"),
        (404, "RevisionNotFound", .notFound, "has no revision"),
        (404, "RepoNotFound", .notFound, "the hub has no"),
        (418, "", .network, "HTTP 418"),
    ]) func refusalsAreNotRepeated(
        status: Int, word: String, code: MartletError.Code, text: String
    ) async throws {
        let server = try await LoopbackServer { _, _ in
            .init(status: .init(statusCode: status), headers: [("X-Error-Code", word)])
        }
        let error = await failure { try await folder.hub(server.endpoint).pull(FakeHub.reference) }
        #expect(error?.code == code)
        #expect(error?.description.contains(text) == true)
        // Where something is missing one more request asks what there is.
        #expect(server.requests.count <= 2)
        #expect(folder.cache.list().isEmpty)
        await server.stop()
    }

    @Test func refusesFlippedBytesAndRemovesThem() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in
            var reply = fake.answer(request)
            if request.method == .GET { reply.body[123_456] ^= 1 }
            return reply
        }
        let hub = folder.hub(server.endpoint)
        let error = await failure { try await hub.pull(FakeHub.reference) }
        #expect(error?.code == .corrupt)
        #expect(error?.context["wanted"] == fake.sha256)
        #expect(folder.blobNames.isEmpty)
        #expect(hub.list().isEmpty)
        await server.stop()
    }

    @Test func replacesAPartialFileThatIsWrong() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        try folder.write(
            ".cache/huggingface/hub/models--Owner--Model-GGUF/blobs/\(fake.name).incomplete",
            randomBytes(1000, seed: 9))
        let model = try await folder.hub(server.endpoint).pull(FakeHub.reference)
        try expectSound(folder, fake, model)
        #expect(server.requests.compactMap { $0.headers.first(name: "Range") } == ["bytes=1000-"])
        await server.stop()
    }

    @Test(arguments: [-1, 1, 100_000]) func refusesAnotherLength(difference: Int) async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in
            var reply = fake.answer(request)
            guard request.method == .GET else { return reply }
            reply.body =
                difference < 0
                ? Array(reply.body.dropLast(-difference))
                : reply.body + [UInt8](repeating: 0, count: difference)
            return reply
        }
        let error = await failure { try await folder.hub(server.endpoint).pull(FakeHub.reference) }
        #expect(error?.code == .corrupt)
        #expect(error?.description.contains("300000") == true)
        #expect(folder.blobNames.isEmpty)
        await server.stop()
    }

    @Test func startsAnewWhenTheFileChangesMidWay() async throws {
        let old = fake
        let new = FakeHub(content: randomBytes(310_000, seed: 2))
        let server = try await LoopbackServer { request, index in
            var reply = (index < 2 ? old : new).answer(request)
            if index == 1 { reply.cutAfter = 90_000 }
            return reply
        }
        let model = try await folder.hub(server.endpoint).pull(FakeHub.reference)
        try expectSound(folder, new, model)
        #expect(
            server.requests.contains { $0.headers.first(name: "If-Range") == "\"\(old.name)\"" })
        await server.stop()
    }

    @Test func refusesHostileNames() async throws {
        for (commit, etag) in [("../../x", "abc"), ("abc", "../evil"), (".git", "a"), ("a", "")] {
            let server = try await LoopbackServer { _, _ in
                .init(headers: [("X-Repo-Commit", commit), ("X-Linked-Etag", "\"\(etag)\"")])
            }
            let error = await failure {
                try await folder.hub(server.endpoint).pull(FakeHub.reference)
            }
            #expect(error?.code == .network)
            await server.stop()
        }
        #expect(Disk.names(in: folder.path).filter { $0 != ".cache" }.isEmpty)
    }

    @Test func saysThatAnEndpointIsNoHub() async throws {
        let server = try await LoopbackServer { _, _ in .init(body: Array("<html>".utf8)) }
        let error = await failure { try await folder.hub(server.endpoint).pull(FakeHub.reference) }
        #expect(error?.description.contains("HF_ENDPOINT") == true)
        await server.stop()
    }

    @Test func offlineNeverAsks() async throws {
        let fake = fake
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let offline = folder.hub(server.endpoint, environment: ["HF_HUB_OFFLINE": "1"])
        let error = await failure { try await offline.pull(FakeHub.reference) }
        #expect(error?.description.contains("HF_HUB_OFFLINE") == true)
        #expect(server.requests.isEmpty)
        _ = try await folder.hub(server.endpoint).pull(FakeHub.reference)
        #expect(try await offline.pull(FakeHub.reference).source == "cache")
        #expect(server.requests.count == 2)
        await server.stop()
    }

    @Test func twoPullsAtOnceFetchOnce() async throws {
        var slow = fake
        slow.pieceSize = 1000
        let fake = slow
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(server.endpoint)
        async let first = hub.pull(FakeHub.reference)
        async let second = hub.pull(FakeHub.reference)
        let models = try await [first, second]
        #expect(models[0].path == models[1].path)
        #expect(server.requests.count { $0.method == .GET } == 1)
        try expectSound(folder, fake, models[0])
        await server.stop()
    }
}
