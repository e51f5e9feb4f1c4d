// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOHTTP1
import Testing

@Suite struct HubRedirectTests {
    private let folder = TemporaryFolder()

    @Test func theTokenStaysWithItsHost() async throws {
        let stored = FakeHub(content: randomBytes(50_000, seed: 3))
        let storage = try await LoopbackServer { request, _ in stored.bytes(request) }
        var front = stored
        front.storage = storage.endpoint
        let fake = front
        let server = try await LoopbackServer { request, _ in
            // A renamed repository first: a relative redirect on the same host.
            if request.path.hasPrefix("/Owner/") {
                return .init(
                    status: .temporaryRedirect,
                    headers: [("Location", "/New\(request.path.dropFirst("/Owner".count))")])
            }
            return fake.answer(request)
        }
        let model = try await folder.hub(server.endpoint, token: "hf_secret").pull(
            FakeHub.reference)
        try expectSound(folder, stored, model)
        #expect(server.requests.count == 4)
        #expect(
            server.requests.allSatisfy {
                $0.headers.first(name: "Authorization") == "Bearer hf_secret"
            })
        #expect(storage.requests.count == 1)
        #expect(storage.requests.allSatisfy { !$0.headers.contains(name: "Authorization") })
        #expect(
            storage.requests.allSatisfy { request in
                !request.headers.contains { $0.value.contains("hf_secret") }
            })
        await server.stop()
        await storage.stop()
    }

    @Test func loopsEnd() async throws {
        let server = try await LoopbackServer { request, _ in
            .init(status: .found, headers: [("Location", request.path)])
        }
        let error = await failure { try await folder.hub(server.endpoint).pull(FakeHub.reference) }
        #expect(error?.code == .network)
        #expect(error?.description.contains("redirects more than 10 times") == true)
        #expect(server.requests.count == 11)
        await server.stop()
    }

    @Test(arguments: [
        ("https://h.example/a/b?c", "/x", "https://h.example/x"),
        ("https://h.example/a/b?c=/d/", "x?y", "https://h.example/a/x?y"),
        ("https://h.example:8443/a", "//g.example/x", "https://g.example/x"),
        ("http://h.example/a", "https://g.example:444/x#y", "https://g.example:444/x"),
        ("http://h.example", "HTTP://G.example", "http://g.example/"),
    ]) func followsLocations(base: String, location: String, wanted: String) throws {
        #expect(try WebAddress(base).following(location).description == wanted)
    }

    @Test(arguments: [
        ("https://h.example/a", "http://h.example/a"), ("https://h.example/a", "https://"),
        ("https://h.example/a", "https://u:p@h.example/"), ("https://h.example/a", "/a b"),
        ("https://h.example/a", "https://h.example:99999/"), ("http://h.example/", "/\r\nX: y"),
    ]) func refusesLocations(base: String, location: String) throws {
        let address = try WebAddress(base)
        #expect(code { try address.following(location) } == .network)
    }

    @Test func anotherPortOrSchemeIsAnotherOrigin() throws {
        let base = try WebAddress("https://h.example/a")
        #expect(base.hasSameOrigin(as: try WebAddress("https://H.example:443/b")))
        for other in ["https://h.example:444/", "http://h.example/", "https://h.example.org/"] {
            #expect(!base.hasSameOrigin(as: try WebAddress(other)))
        }
    }
}
