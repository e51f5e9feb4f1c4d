// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

@Suite struct CacheTests {
    private let folder = TemporaryFolder()
    private let root = ".cache/huggingface/hub/models--Owner--Model-GGUF"

    private func place(_ path: String, _ bytes: [UInt8], etag: String) throws -> String {
        try folder.write("\(root)/blobs/\(etag).incomplete", bytes)
        return try folder.cache.place(
            "\(folder.blobs)/\(etag).incomplete", as: etag,
            HubFile(HubRepository(FakeHub.repository), path), commit: FakeHub.commit,
            replacingReference: true)
    }

    @Test func listsAndRemoves() throws {
        let first = try place("a.gguf", [1, 2, 3], etag: "aa")
        let second = try place("deep/er/b.gguf", [4, 5], etag: "bb")
        _ = try place("copy.gguf", [1, 2, 3], etag: "aa")
        #expect(try contents(first) == [1, 2, 3])
        #expect(try contents(second) == [4, 5])
        let hub = folder.hub("http://127.0.0.1:9")
        let model = try #require(hub.list().first)
        #expect(model.repository == FakeHub.repository)
        #expect(model.files.map(\.name) == ["a.gguf", "copy.gguf", "deep/er/b.gguf"])
        #expect(model.byteCount == 5)

        // Content that another name still links to stays.
        #expect(try hub.remove(try hub.reference("Owner/Model-GGUF:a.gguf")) == 0)
        #expect(folder.blobNames == ["aa", "bb"])
        #expect(try hub.remove(try hub.reference("Owner/Model-GGUF:deep/er/b.gguf")) == 2)
        #expect(folder.blobNames == ["aa"])
        #expect(try hub.remove(try hub.reference("Owner/Model-GGUF")) == 3)
        #expect(hub.list().isEmpty)
        #expect(Disk.entry("\(folder.path)/\(root)") == nil)
        #expect(code { try hub.remove(try hub.reference("Owner/Model-GGUF")) } == .notFound)
        #expect(code { try hub.remove(.path("/x")) } == .invalidArgument)
    }

    @Test func neverListsPartsOrForeignFolders() throws {
        try folder.write("\(root)/blobs/cc.incomplete", [1])
        try folder.write(".cache/huggingface/hub/datasets--a--b/snapshots/c/x", [1])
        try folder.write(".cache/huggingface/hub/models--single/snapshots/c/x", [1])
        #expect(folder.cache.list().isEmpty)
    }

    @Test func aFileInThePlaceOfTheCacheIsAnError() async throws {
        try folder.write("file", [1])
        let fake = FakeHub(content: [1, 2, 3])
        let server = try await LoopbackServer { request, _ in fake.answer(request) }
        let hub = folder.hub(
            server.endpoint, environment: ["HF_HUB_CACHE": "\(folder.path)/file/hub"])
        let error = await failure { try await hub.pull(FakeHub.reference) }
        #expect(error?.description.contains("\(folder.path)/file") == true)
        await server.stop()
    }

    @Test func readsTheEnvironment() throws {
        try folder.write("token", Array(" hf_file\n".utf8))
        let configuration = HubConfiguration(environment: [
            "HOME": "/h", "HF_HOME": "~/hf/", "HF_ENDPOINT": "https://mirror.example/",
            "HF_TOKEN_PATH": "\(folder.path)/token", "HTTPS_PROXY": "http://u:p%40@p.example:3128",
            "NO_PROXY": ".local.example,other.example", "HF_HUB_OFFLINE": "yes",
        ])
        #expect(configuration.huggingFace.cacheFolder == "/h/hf/hub")
        #expect(configuration.huggingFace.endpoint == "https://mirror.example")
        #expect(configuration.huggingFace.token == "hf_file")
        #expect(configuration.modelScope.endpoint == "https://modelscope.cn")
        #expect(configuration.modelScope.token == nil)
        #expect(configuration.modelScope.cacheFolder == "/h/.cache/modelscope/models")
        #expect(configuration.isOffline)
        let proxy = configuration.proxies.proxy(for: try WebAddress("https://a.example"))
        #expect(proxy?.host == "p.example")
        #expect(proxy?.port == 3128)
        #expect(proxy?.credentials == "u:p@")
        for direct in ["https://x.local.example", "https://other.example", "http://a.example"] {
            #expect(configuration.proxies.proxy(for: try WebAddress(direct)) == nil)
        }
    }

    @Test func theBarNeverGoesBack() {
        let lines = TextLog()
        let terminal = PullTerminal(style: .bar(columnCount: 80, hasColor: false)) { lines.add($0) }
        for count in [10, 500, 200, 0, 700, 1000] {
            var progress = TransferProgress(byteCount: count, totalByteCount: 1000)
            progress.bytesPerSecond = 100
            progress.secondsLeft = 65
            terminal.take(.progress(progress))
        }
        let percents = lines.all.compactMap { line in
            Int(line.dropFirst(4).prefix { $0 != "%" }.filter { $0 != " " })
        }
        #expect(percents == [1, 50, 50, 50, 70, 100])
        #expect(lines.all.allSatisfy { $0.contains("ETA 1m05s") && $0.count <= 84 })
        PullTerminal(style: .quiet) { lines.add($0) }.take(.source("x"))
        #expect(lines.all.count == 6)
    }
}
