// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import Testing

/// The cache beside Python's `huggingface_hub`: each finds what the other fetched, in one layout.
@Suite(.enabled("Python's huggingface_hub is not installed") { await Python.hasHub })
struct PythonCacheTests {
    private let ours = TemporaryFolder()
    private let theirs = TemporaryFolder()
    private let model = FakeRepository.sharded()

    private func variables(_ folder: TemporaryFolder, _ endpoint: String) -> [String: String] {
        [
            "HOME": folder.path, "HF_HOME": "\(folder.path)/.cache/huggingface",
            "HF_HUB_CACHE": folder.cache.root, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "", "NO_PROXY": "*",
        ].merging(TemporaryFolder.patience) { asked, _ in asked }
    }

    /// Files of a repository's folder, with where they link to or what they hold.
    private func layout(_ folder: String) -> [String] {
        var lines: [String] = []
        func walk(_ path: String) {
            for name in Disk.names(in: "\(folder)/\(path)") {
                let below = path.isEmpty ? name : "\(path)/\(name)"
                if let target = Disk.linkTarget("\(folder)/\(below)") {
                    lines.append("\(below) -> \(target)")
                } else if Disk.entry("\(folder)/\(below)")?.isDirectory == true {
                    walk(below)
                } else {
                    lines.append("\(below): \(Disk.shortText("\(folder)/\(below)") ?? "large")")
                }
            }
        }
        for part in ["blobs", "refs", "snapshots"] { walk(part) }
        return lines
    }

    @Test(.timeLimit(.minutes(10))) func bothLayOutTheSame() async throws {
        let model = model
        let server = try await LoopbackServer { request, _ in model.answer(request) }
        let pulled = try await ours.hub(server.endpoint).pull(FakeRepository.huggingFace)
        let path = try await Python.run(
            "-c",
            """
            import sys
            from huggingface_hub import snapshot_download
            print(snapshot_download(sys.argv[1], allow_patterns=sys.argv[2].split(",")))
            """, FakeRepository.name, FakeRepository.needed.joined(separator: ","),
            environment: variables(theirs, server.endpoint))
        let name = FakeRepository.name
        #expect(layout(ours.cache.folder(name)) == layout(theirs.cache.folder(name)))
        #expect(pulled.path.droppingPrefix(ours.path) == path.droppingPrefix(theirs.path))

        // Their cache is ours: the listing alone is asked for, nothing is fetched again.
        let hub = theirs.hub(server.endpoint)
        #expect(try hub.lookup(FakeRepository.huggingFace) == path)
        let count = server.requests.count
        let again = try await hub.pull(FakeRepository.huggingFace)
        #expect(again.source == "cache")
        #expect(again.path == path)
        #expect(server.requests.count == count + 1)
        #expect(hub.list().map(\.byteCount) == [model.neededByteCount])
        await server.stop()
    }

    /// Ours is theirs: all files are found offline, and a scan sees no fault and the same size.
    @Test(.timeLimit(.minutes(10))) func theyReadWhatWeFetched() async throws {
        let model = model
        let server = try await LoopbackServer { request, _ in model.answer(request) }
        let pulled = try await ours.hub(server.endpoint).pull(FakeRepository.huggingFace)
        await server.stop()
        let output = try await Python.run(
            "-c",
            """
            import sys
            from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
            name, files = sys.argv[1], sys.argv[2].split(",")
            path = snapshot_download(name, local_files_only=True)
            assert all(try_to_load_from_cache(name, file) == f"{path}/{file}" for file in files)
            scan = scan_cache_dir()
            assert not scan.warnings, scan.warnings
            repo, = scan.repos
            assert repo.repo_id == name and repo.refs.keys() == {"main"}, repo
            print(path, scan.size_on_disk, repo.nb_files)
            """, FakeRepository.name, FakeRepository.needed.joined(separator: ","),
            environment: variables(ours, server.endpoint))
        #expect(
            output == "\(pulled.path) \(model.neededByteCount) \(FakeRepository.needed.count)")
    }

    /// A pull of theirs waits for ours: both take the same lock.
    @Test(.timeLimit(.minutes(10))) func bothTakeTheSameLock() async throws {
        let lock = ours.cache.lock(FakeRepository.name, model.etag("config.json"))
        let held = try await FileLock.acquire(lock) {}
        let output = try await Python.run(
            "-c",
            """
            import sys
            from huggingface_hub import constants
            from huggingface_hub.utils import WeakFileLock
            path = f"{constants.HF_HUB_CACHE}/.locks/models--Owner--Model/{sys.argv[1]}.lock"
            assert path == sys.argv[2], path
            try:
                with WeakFileLock(path, timeout=0.2): print("free")
            except Exception as error:
                print(type(error).__name__)
            """, model.etag("config.json"), lock,
            environment: variables(ours, "http://127.0.0.1:9"))
        #expect(output == "Timeout")
        held.release()
    }
}
