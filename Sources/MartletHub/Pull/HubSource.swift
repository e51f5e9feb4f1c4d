// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A file of a hub repository, fetched into the cache.
struct HubSource {
    private static let changeLimit = 3

    let configuration: HubConfiguration
    let cache: HubCache
    let file: HubFile
    /// The only content to accept, where an alias pins it.
    let pinned: ModelAlias?
    let hasAlternative: Bool
    let observe: PullObserver

    /// Fetches the file unless the cache has its present content.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func pull() async throws -> PulledModel {
        try await WebClient.with(configuration) { web in
            let client = HubClient(
                web: web, configuration: configuration, observe: observe,
                hasAlternative: hasAlternative)
            for _ in 0..<Self.changeLimit {
                do {
                    return try await pull(client, try await client.metadata(file))
                } catch is Download.Changed {
                    continue
                }
            }
            throw MartletError(
                .network, "\(file) changed \(Self.changeLimit) times while it was fetched",
                mend: "Pull again, or name a commit: \(file.repository)@COMMIT:\(file.path)")
        }
    }

    private func pull(_ client: HubClient, _ metadata: HubMetadata) async throws -> PulledModel {
        if let pinned, metadata.etag != pinned.sha256 {
            throw MartletError(
                .corrupt,
                "the hub's \(file) is \(metadata.etag), \(pinned.name) stands for \(pinned.sha256)")
        }
        let source = "hub \(file) (\(configuration.endpoint))"
        observe(.source(source))
        let blob = cache.blob(file.repository, metadata.etag)
        let lock = try await FileLock.acquire(cache.lock(file.repository, metadata.etag)) {
            observe(.waiting(file.description))
        }
        defer { lock.release() }
        if let entry = Disk.entry(blob), entry.isFile,
            metadata.byteCount == nil || metadata.byteCount == entry.byteCount
        {
            let path = try cache.place(
                nil, as: metadata.etag, file, commit: metadata.commit, replacingReference: true)
            return PulledModel(
                path: path, source: "cache", byteCount: entry.byteCount, sha256: nil)
        }
        if let parent = Disk.parent(of: blob) { try Disk.makeFolder(parent) }
        let partial = "\(blob).incomplete"
        let download = Download(
            client: client, file: file, metadata: metadata, path: partial,
            meter: TransferMeter(total: metadata.byteCount, observe: observe))
        let (sha256, byteCount) = try await discardingIfChanged(partial) {
            try await download.run()
        }
        let path = try cache.place(
            partial, as: metadata.etag, file, commit: metadata.commit, replacingReference: true)
        return PulledModel(path: path, source: source, byteCount: byteCount, sha256: sha256)
    }

    private func discardingIfChanged<Result>(
        _ partial: String, _ body: () async throws -> Result
    ) async throws -> Result {
        do {
            return try await body()
        } catch let changed as Download.Changed {
            try Disk.remove(partial)
            throw changed
        }
    }
}
