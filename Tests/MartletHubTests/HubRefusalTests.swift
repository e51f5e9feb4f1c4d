// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Testing

/// What a pull says where it cannot go on: the cause and the mend.
@Suite struct HubRefusalTests {
    private let folder = TemporaryFolder()

    @Test(arguments: [
        (FakeRepository.huggingFace, 401, "GatedRepo", "Accept its licence at "),
        (FakeRepository.huggingFace, 403, "GatedRepo", "then set HF_TOKEN"),
        (FakeRepository.huggingFace, 401, "RepoNotFound", "or set HF_TOKEN"),
        (FakeRepository.modelScope, 403, "", "set MODELSCOPE_API_TOKEN"),
        (FakeRepository.huggingFace, 404, "RevisionNotFound", "has no revision 'main'"),
        (FakeRepository.modelScope, 404, "", "the hub has no modelscope:Owner/Model (HTTP 404)"),
    ]) func aRepositoryIsRefused(
        reference: ModelReference, status: Int, word: String, text: String
    ) async throws {
        let server = try await LoopbackServer { _, _ in
            .init(status: .init(statusCode: status), headers: [("X-Error-Code", word)])
        }
        let error = await failure { try await folder.hub(server.endpoint).pull(reference) }
        #expect(error?.description.contains(text) == true, "\(String(describing: error))")
        #expect(error?.code == (status == 404 ? .notFound : .network))
        #expect(server.requests.count <= 2)
        await server.stop()
    }

    @Test func namesTheNearestRepository() async throws {
        var repository = FakeRepository.sharded()
        repository.others = ["Owner/Other", "Owner/Model", "Own/Model"]
        let fake = repository
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let error = await failure {
            try await folder.hub(server.endpoint).pull(
                .repository(HubRepository("Owmer/Model"), nil))
        }
        #expect(error?.code == .notFound)
        #expect(error?.mend?.hasPrefix("Did you mean Owner/Model?") == true)
        #expect(server.requests.last?.path == "/api/models?limit=20&search=Model")
        await server.stop()
    }

    @Test func namesTheNearestFile() async throws {
        let fake = FakeRepository.sharded()
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let error = await failure {
            try await folder.hub(server.endpoint).pull(
                .repository(HubRepository(FakeRepository.name), .file("model.Q4_K_S.gguf")))
        }
        #expect(error?.code == .notFound)
        #expect(error?.mend?.hasPrefix("Did you mean Owner/Model:model.Q4_K_M.gguf?") == true)
        await server.stop()
    }

    private static let pointer = Array(
        """
        version https://git-lfs.github.com/spec/v1
        oid sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        size 123456

        """.utf8)

    /// The pointer is what the repository holds, or what a mirror sends for the weights.
    @Test(arguments: [true, false]) func namesAPointer(isContent: Bool) async throws {
        var repository = FakeRepository.sharded()
        if isContent { repository.files["model-00002-of-00003.safetensors"] = Self.pointer }
        let fake = repository
        let server = try await LoopbackServer { request, _ in
            var reply = fake.answer(request)
            if request.path.contains("00002-of-00003") { reply.body = Self.pointer }
            return reply
        }
        let hub = folder.hub(server.endpoint)
        let error = await failure { try await hub.pull(FakeRepository.huggingFace) }
        #expect(error?.code == .corrupt)
        #expect(
            error?.description.contains("Git LFS pointer") == true, "\(String(describing: error))")
        #expect(try hub.lookup(FakeRepository.huggingFace) == nil)
        await server.stop()
    }

    @Test(arguments: ["[]", "{}", "<html>", #"{"sha": "x"}"#, #"{"Code": 500, "Message": "m"}"#])
    func namesAnEndpointThatIsNoHub(body: String) async throws {
        let server = try await LoopbackServer { _, _ in .init(body: Array(body.utf8)) }
        for (reference, name) in [
            (FakeRepository.huggingFace, "HF_ENDPOINT"),
            (FakeRepository.modelScope, "MODELSCOPE_ENDPOINT"),
        ] {
            let error = await failure { try await folder.hub(server.endpoint).pull(reference) }
            #expect(error?.code == .network)
            #expect(error?.mend?.contains(name) == true)
        }
        await server.stop()
    }

    @Test func ignoresHostilePaths() async throws {
        var fake = FakeRepository.sharded()
        for path in ["../../evil.json", "/etc/evil.json", "a/../../config.json"] {
            fake.files[path] = [1]
        }
        let repository = fake
        let server = try await LoopbackServer { request, _ in repository.answer(request) }
        for reference in [FakeRepository.huggingFace, FakeRepository.modelScope] {
            let pulled = try await folder.hub(server.endpoint).pull(reference)
            #expect(Disk.names(in: pulled.path) == FakeRepository.needed)
        }
        await server.stop()
    }
}
