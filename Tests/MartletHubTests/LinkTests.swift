// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Links in the cache that lead out of it: what lies behind them is read, never removed or replaced.
@Suite struct LinkTests {
    private let folder = TemporaryFolder()
    private let root = ".cache/huggingface/hub/models--Owner--Model-GGUF"
    private let name = FakeHub.repository

    private var repository: String { "\(folder.path)/\(root)" }
    private var snapshot: String { "\(repository)/snapshots/\(FakeHub.commit)" }

    /// A cache with one file, and a folder outside that holds files of the same names.
    private func make() throws {
        try folder.write("\(root)/blobs/aa.incomplete", [1, 2, 3])
        _ = try place("aa", "a.gguf")
        for file in ["a.gguf", "b.gguf", "aa", "bb", "main"] {
            try folder.write("outside/\(file)", [9])
        }
    }

    private func place(_ etag: String, _ path: String) throws -> String {
        try folder.cache.place(
            "\(repository)/blobs/\(etag).incomplete", as: etag,
            HubFile(HubRepository(name), path), commit: FakeHub.commit, replacingReference: true)
    }

    private func link(_ target: String, _ path: String) throws {
        try Disk.removeTree(path)
        #expect(symlink(target, path) == 0)
    }

    private func expectOutsideAsItWas() throws {
        let names = Disk.names(in: "\(folder.path)/outside")
        #expect(names == ["a.gguf", "aa", "b.gguf", "bb", "main"])
        for file in names { #expect(try contents("\(folder.path)/outside/\(file)") == [9]) }
    }

    /// A file that is a link to the outside loses its name only.
    @Test func aLinkedFileLosesItsName() throws {
        try make()
        try link("\(folder.path)/outside/b.gguf", "\(snapshot)/b.gguf")
        let hub = folder.hub("http://127.0.0.1:9")
        #expect(hub.list().first?.files.map(\.name) == ["a.gguf", "b.gguf"])
        _ = try hub.remove(try hub.reference("\(name):b.gguf"))
        #expect(hub.list().first?.files.map(\.name) == ["a.gguf"])
        #expect(Disk.names(in: "\(repository)/blobs") == ["aa"])
        try expectOutsideAsItWas()
    }

    /// Folders that are links: one file is not removed behind them, the whole repository goes without them.
    @Test(arguments: ["snapshots", "snapshots/\(FakeHub.commit)", "blobs"])
    func linkedFoldersAreLeftAlone(_ place: String) throws {
        try make()
        try folder.write("\(root)/blobs/cc.incomplete", [4])
        _ = try self.place("cc", "c.gguf")
        let target = place == "snapshots" ? "snapshots-outside" : "outside"
        if place == "snapshots" {
            try folder.write("snapshots-outside/\(FakeHub.commit)/a.gguf", [9])
            try folder.write("snapshots-outside/\(FakeHub.commit)/c.gguf", [9])
        }
        if place == "blobs" { try folder.write("outside/cc", [9]) }
        try link("\(folder.path)/\(target)", "\(repository)/\(place)")
        let hub = folder.hub("http://127.0.0.1:9")
        let reference = try hub.reference("\(name):a.gguf")
        #expect(code { try hub.remove(reference) } == .io)
        _ = try hub.remove(try hub.reference(name))
        #expect(hub.list().isEmpty)
        #expect(Disk.entry(repository) == nil)
        if place == "snapshots" {
            let kept = Disk.names(in: "\(folder.path)/snapshots-outside/\(FakeHub.commit)")
            #expect(kept == ["a.gguf", "c.gguf"])
        }
        if place == "blobs" { try Disk.remove("\(folder.path)/outside/cc") }
        try expectOutsideAsItWas()
    }

    /// A pull writes behind no link, wherever it stands; that the repository's own folder is one is fine.
    @Test(arguments: ["snapshots", "snapshots/\(FakeHub.commit)", "blobs", "refs"])
    func nothingIsWrittenBehindALink(_ place: String) async throws {
        try make()
        try link("\(folder.path)/outside", "\(repository)/\(place)")
        let fake = FakeHub(content: [1, 2, 3, 4])
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(server.endpoint)
        let error = await failure { try await hub.pull(FakeHub.reference) }
        #expect(error?.code == .io, "\(String(describing: error))")
        #expect(error?.description.contains("\(place) is a link") == true)
        await server.stop()
        try expectOutsideAsItWas()
    }

    @Test func aRepositoryMayLieElsewhere() async throws {
        try folder.write("disk/keep", [9])
        try Disk.makeFolder("\(folder.path)/.cache/huggingface/hub")
        try link("\(folder.path)/disk", repository)
        let fake = FakeHub(content: [1, 2, 3, 4])
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(server.endpoint)
        let pulled = try await hub.pull(FakeHub.reference)
        #expect(try contents(pulled.path) == [1, 2, 3, 4])
        await server.stop()
        // What it leads to is the user's to remove: a link alone would free nothing.
        let error = failure { try hub.remove(try hub.reference(name)) }
        #expect(error?.code == .io && error?.message.contains("is a link") == true)
        #expect(try contents(pulled.path) == [1, 2, 3, 4])
    }

    /// Half a file that is a link is not written through.
    @Test func aLinkedPartIsNotWrittenThrough() async throws {
        try make()
        let fake = FakeHub(content: [1, 2, 3, 4])
        let etag = fake.name
        try link("\(folder.path)/outside/aa", "\(repository)/blobs/\(etag).incomplete")
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(server.endpoint)
        let error = await failure { try await hub.pull(FakeHub.reference) }
        #expect(error?.code == .io, "\(String(describing: error))")
        await server.stop()
        try expectOutsideAsItWas()
    }

    /// Without a home folder there is no place for models, and no model in a folder of the root.
    @Test func withoutAHomeThereIsNoCache() async throws {
        let configuration = HubConfiguration(environment: [:], userFolder: nil)
        #expect(configuration.huggingFace.cacheFolder.isEmpty)
        let hub = Hub(configuration: configuration)
        #expect(hub.list().isEmpty)
        for (text, variable) in [
            ("smollm2", "HF_HOME"), ("a/b", "HF_HOME"), ("modelscope:a/b", "MODELSCOPE_CACHE"),
        ] {
            let reference = try hub.reference(text)
            let error = await failure { try await hub.pull(reference) }
            #expect(error?.code == .notFound)
            #expect(error?.description.hasSuffix("Set \(variable) to a folder") == true)
            #expect(code { try hub.remove(reference) } == .notFound)
            #expect(code { try hub.lookup(reference) } == .notFound)
        }
        let known = HubConfiguration(environment: [:], userFolder: "/home/u")
        #expect(known.huggingFace.cacheFolder == "/home/u/.cache/huggingface/hub")
        let named = HubConfiguration(environment: ["HF_HOME": "/hf"], userFolder: nil)
        #expect(named.huggingFace.cacheFolder == "/hf/hub")
    }
}
