// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A repository in the cache.
public struct CachedModel: Sendable, Hashable, CustomStringConvertible {
    /// One file of it.
    public struct File: Sendable, Hashable {
        /// Path inside the repository.
        public let name: String
        /// Commit of the snapshot that holds it.
        public let commit: String
        /// Path on this machine.
        public let path: String
        /// Length in bytes.
        public let byteCount: Int
        /// Last change, seconds since 1970.
        public let modified: Int
    }

    /// Where it came from.
    public let site: HubSite
    /// Owner and name.
    public let repository: String
    /// Files, by name; one that several snapshots share is listed for each.
    public let files: [File]
    /// Bytes on disk, shared content counted once.
    public let byteCount: Int
    /// Last change of any file, seconds since 1970.
    public let modified: Int

    /// The repository as a user would type it.
    public var description: String { HubRepository(repository, site: site).description }
}

extension HubCache {
    /// All repositories with at least one complete file, by name.
    package func list() -> [CachedModel] {
        Disk.names(in: root).compactMap { name in
            guard let rest = name.droppingPrefix(prefix) else { return nil }
            let parts = rest.split(separator: "--", omittingEmptySubsequences: false)
            guard parts.count == 2 else { return nil }
            return model("\(parts[0])/\(parts[1])")
        }
    }

    /// One repository; nil if the cache holds no complete file of it.
    package func model(_ repository: String) -> CachedModel? {
        let snapshots = "\(folder(repository))/snapshots"
        var files: [CachedModel.File] = []
        for commit in Disk.names(in: snapshots) {
            collect("\(snapshots)/\(commit)", commit, into: &files)
        }
        guard !files.isEmpty else { return nil }
        var seen: Set<String> = []
        var byteCount = 0
        for file in files where seen.insert(content(of: file.path, repository)).inserted {
            byteCount += file.byteCount
        }
        return CachedModel(
            site: site, repository: repository,
            files: files.sorted { ($0.name, $0.commit) < ($1.name, $1.commit) },
            byteCount: byteCount, modified: files.map(\.modified).max() ?? 0)
    }

    /// Removes a repository, or one file of it in all snapshots with its content.
    ///
    /// - Parameters:
    ///   - path: Path of the file in the repository; nil removes everything of the repository.
    /// - Returns: Bytes freed.
    /// - Throws: `MartletError` `.notFound` if the cache does not hold it, `.io`.
    package func remove(_ repository: String, path: String?) throws -> Int {
        guard HubNames.isRepository(repository) else {
            throw MartletError(.invalidArgument, "'\(repository)' is no repository name")
        }
        guard let model = model(repository) else {
            throw MartletError(
                .notFound, "the cache holds nothing of \(repository)", mend: "See martlet ls")
        }
        guard !Disk.isLink(folder(repository)) else {
            throw MartletError(
                .io, "\(folder(repository)) is a link, and nothing is removed behind it",
                mend: "Remove what it leads to, then the link")
        }
        guard let path else {
            try Disk.removeTree(folder(repository))
            return model.byteCount
        }
        let doomed = model.files.filter { $0.name == path }
        guard !doomed.isEmpty else {
            throw MartletError(
                .notFound, "the cache holds no '\(path)' of \(repository)", mend: "See martlet ls")
        }
        if doomed.count == model.files.count {
            try Disk.removeTree(folder(repository))
            return model.byteCount
        }
        try checkFolders(
            of: repository, around: doomed.flatMap { [$0.path, blob(repository, "x")] })
        let kept = Set(
            model.files.filter { $0.name != path }.map { content(of: $0.path, repository) })
        var freed = 0
        for file in doomed {
            let content = content(of: file.path, repository)
            let isLast = !kept.contains(content)
            if isLast { freed += Disk.entry(content)?.byteCount ?? 0 }
            try Disk.remove(file.path)
            if isLast { try Disk.remove(content) }
            prune(file, repository)
        }
        return freed
    }

    /// Removes folders, and references to snapshots, that a removed file left empty.
    private func prune(_ file: CachedModel.File, _ repository: String) {
        let snapshot = "\(folder(repository))/snapshots/\(file.commit)"
        var place = Disk.parent(of: file.path)
        while let folder = place, folder.count >= snapshot.count {
            Disk.removeIfEmpty(folder)
            place = Disk.parent(of: folder)
        }
        guard Disk.entry(snapshot) == nil else { return }
        let references = "\(folder(repository))/refs"
        for name in Disk.names(in: references)
        where Disk.shortText("\(references)/\(name)") == file.commit {
            try? Disk.remove("\(references)/\(name)")
        }
    }

    /// The blob a snapshot's file links to, or the file itself.
    private func content(of path: String, _ repository: String) -> String {
        guard let target = Disk.linkTarget(path), let blob = target.split(separator: "/").last,
            HubNames.isComponent(String(blob))
        else { return path }
        return self.blob(repository, String(blob))
    }

    private func collect(
        _ folder: String, _ commit: String, prefix: String = "",
        into files: inout [CachedModel.File]
    ) {
        // Deeper than any repository: links could lead in circles.
        guard prefix.utf8.count < 1024 else { return }
        for name in Disk.names(in: folder) {
            let path = "\(folder)/\(name)"
            guard let entry = Disk.entry(path) else { continue }
            if entry.isDirectory, !Disk.isLink(path) {
                collect(path, commit, prefix: "\(prefix)\(name)/", into: &files)
            } else if entry.isFile {
                files.append(
                    CachedModel.File(
                        name: prefix + name, commit: commit, path: path,
                        byteCount: entry.byteCount, modified: entry.modified))
            }
        }
    }
}
