// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A repository of a hub, whose files are fetched into the cache.
struct HubSource {
    private static let changeLimit = 3

    let configuration: HubConfiguration
    let repository: HubRepository
    /// The only content to accept, where an alias pins it.
    var pinned: ModelAlias?
    let hasAlternative: Bool
    let observe: PullObserver

    private var cache: HubCache { configuration.cache(repository.site) }

    /// Fetches what the cache does not have in its present state.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func pull(_ selector: ModelReference.Selector?) async throws -> PulledModel {
        try await WebClient.with(configuration, repository.site) { web in
            let client = HubClient(
                web: web, configuration: configuration, repository: repository, observe: observe,
                hasAlternative: hasAlternative)
            do {
                for _ in 0..<Self.changeLimit {
                    do {
                        if case .file(let path) = selector {
                            return try await pull(path, client)
                        }
                        return try await pull(selector, client)
                    } catch is Download.Changed {
                        continue
                    }
                }
            } catch let error as MartletError where error.context["missing"] != nil {
                throw await naming(error, selector, client)
            }
            throw MartletError(
                .network, "\(repository) changed \(Self.changeLimit) times while it was fetched",
                mend: "Pull again, or name a commit: \(repository.name)@COMMIT")
        }
    }

    private var sourceName: String {
        "hub \(repository) (\(configuration.access(repository.site).endpoint))"
    }

    /// One file, which needs no listing.
    private func pull(_ path: String, _ client: HubClient) async throws -> PulledModel {
        let metadata = try await client.metadata(path)
        if let pinned, metadata.etag != pinned.sha256 {
            throw MartletError(
                .corrupt,
                "the hub's \(pinned.file) is \(metadata.etag), \(pinned.name) stands for "
                    + pinned.sha256)
        }
        observe(.source(sourceName))
        let transfer = transfer(client, [path: metadata])
        let file = try await transfer.fetch(path)
        return PulledModel(
            path: file.path, source: file.sha256 == nil ? "cache" : sourceName,
            byteCount: file.byteCount, sha256: file.sha256)
    }

    /// The files that a model needs.
    private func pull(
        _ selector: ModelReference.Selector?, _ client: HubClient
    ) async throws -> PulledModel {
        observe(.source(sourceName))
        let listing = try await client.listing()
        var files = try ModelFiles.choose(listing.paths, selector, of: repository)
        var known = listing.metadata
        func describe(_ paths: [String]) async throws {
            for path in paths where known[path] == nil {
                known[path] = try await client.metadata(path)
            }
        }
        if let index = files.index {
            try await describe([index])
            let place = try await transfer(client, [index: known[index]]).fetch(index).path
            try files.read(
                index: MappedFile.map(place).withUnsafeBytes(Array.init), among: listing.paths)
        }
        let small = files.companions + [files.index].compactMap(\.self)
        try await describe(small + files.weights)
        let transfer = transfer(client, known.filter { (small + files.weights).contains($0.key) })
        // Weights last: whoever looks into the folder in between finds it without them.
        var fetched = try await transfer.fetch(small)
        fetched += try await transfer.fetch(files.weights)
        let first = fetched[small.count].path
        let commit = known[files.weights[0]]?.commit ?? ""
        return PulledModel(
            path: small.isEmpty ? first : cache.snapshot(repository.name, commit: commit),
            source: fetched.allSatisfy { $0.sha256 == nil } ? "cache" : sourceName,
            byteCount: fetched.reduce(0) { $0 + $1.byteCount },
            sha256: fetched.count == 1 ? fetched[0].sha256 : nil)
    }

    private func transfer(_ client: HubClient, _ files: [String: HubMetadata?]) -> Transfer {
        Transfer(client: client, cache: cache, files: files.compactMapValues(\.self))
    }

    /// Adds what there is to what was not found.
    private func naming(
        _ error: MartletError, _ selector: ModelReference.Selector?, _ client: HubClient
    ) async -> MartletError {
        var error = error
        if error.context["missing"] == "file", case .file(let path) = selector,
            let paths = try? await client.listing().paths
        {
            let models = paths.filter { path in
                ModelReference.fileEndings.contains { path.lowercased().hasSuffix($0) }
            }
            let nearest = EditDistance.nearest(path, among: paths)
            error.mend =
                (nearest.map { "Did you mean \(HubFile(repository, $0))? " } ?? "")
                + "It has " + ModelFiles.list(models.isEmpty ? paths : models)
        } else if error.context["missing"] == "repository",
            let nearest = EditDistance.nearest(
                repository.name, among: await client.similarRepositories()),
            nearest != repository.name
        {
            error.mend = "Did you mean \(nearest)? " + (error.mend ?? "")
        }
        return error
    }
}
