// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The folder layout of Python's `huggingface_hub`, shared with it both ways.
///
/// `models--OWNER--NAME/blobs/<etag>` holds content, `snapshots/<commit>/<path>` links to it,
/// `refs/<revision>` names a commit, `.locks/models--OWNER--NAME/<etag>.lock` guards a blob.
/// ModelScope's package does almost the same: no prefix, and `snapshots/<revision>`.
package struct HubCache: Sendable {
    /// The folder that holds all repositories.
    package let root: String
    /// Whose repositories they are.
    package let site: HubSite

    /// A cache in a folder, which need not exist yet.
    package init(root: String, site: HubSite = .huggingFace) {
        self.root = root
        self.site = site
    }

    /// What the names of repositories' folders start with.
    var prefix: String { site == .modelScope ? "" : "models--" }

    private func folderName(_ repository: String) -> String {
        prefix + repository.split(separator: "/").joined(separator: "--")
    }

    /// Folder of a repository.
    package func folder(_ repository: String) -> String { "\(root)/\(folderName(repository))" }

    /// Where a blob lies.
    package func blob(_ repository: String, _ etag: String) -> String {
        "\(folder(repository))/blobs/\(etag)"
    }

    /// The lock file of a blob.
    package func lock(_ repository: String, _ etag: String) -> String {
        "\(root)/.locks/\(folderName(repository))/\(etag).lock"
    }

    /// Folder of a commit's files.
    package func snapshot(_ repository: String, commit: String) -> String {
        "\(folder(repository))/snapshots/\(commit)"
    }

    /// The commit that a revision stands for in the cache.
    package func commit(_ repository: HubRepository) -> String? {
        let reference = "\(folder(repository.name))/refs/\(repository.revision)"
        let text = Disk.shortText(reference) ?? repository.revision
        return HubNames.isComponent(text) ? text : nil
    }

    /// Finds a file without any network.
    ///
    /// - Parameters:
    ///   - byteCount: The only length to accept, where it is known; then other snapshots than
    ///     the revision's are searched too.
    /// - Returns: Path of the file in its snapshot; nil if the cache does not hold it.
    package func find(_ file: HubFile, byteCount: Int? = nil) -> String? {
        func usable(_ commit: String) -> String? {
            let path = "\(snapshot(file.repository.name, commit: commit))/\(file.path)"
            guard let entry = Disk.entry(path), entry.isFile else { return nil }
            return byteCount == nil || byteCount == entry.byteCount ? path : nil
        }
        if let path = commit(file.repository).flatMap(usable) { return path }
        guard byteCount != nil else { return nil }
        return Disk.names(in: "\(folder(file.repository.name))/snapshots").lazy
            .compactMap(usable).first
    }

    /// Refuses a repository with a link in place of a folder: what lies behind it is not the cache's to change.
    ///
    /// The repository's own folder may be one: large ones are put on other disks so.
    ///
    /// - Parameters:
    ///   - paths: Files of the repository that are to be written or removed.
    /// - Throws: `MartletError` `.io` naming the link.
    func checkFolders(of repository: String, around paths: [String]) throws {
        let root = folder(repository)
        for path in paths {
            var place = Disk.parent(of: path)
            while let folder = place, folder.utf8.count > root.utf8.count {
                guard !Disk.isLink(folder) else {
                    throw MartletError(
                        .io, "\(folder) is a link, and nothing is changed behind it",
                        mend: "Remove the link, or make \(root) itself one",
                        context: ["file": folder])
                }
                place = Disk.parent(of: folder)
            }
        }
    }

    /// As `checkFolders`, for all that bringing a file into the cache writes.
    func checkFolders(for file: HubFile, etag: String, commit: String) throws {
        let name = file.repository.name
        try checkFolders(
            of: name,
            around: [
                blob(name, etag), "\(snapshot(name, commit: commit))/\(file.path)",
                "\(folder(name))/refs/\(file.repository.revision)",
            ])
    }

    /// Moves a complete partial file to its blob and links it into a snapshot.
    ///
    /// - Parameters:
    ///   - partial: A complete, checked and synced file in `blobs`; nil if the blob is there.
    ///   - replacingReference: Whether an existing reference of the revision is moved.
    /// - Returns: Path of the file in its snapshot.
    /// - Throws: `MartletError` `.io`.
    package func place(
        _ partial: String?, as etag: String, _ file: HubFile, commit: String,
        replacingReference: Bool
    ) throws -> String {
        try checkFolders(for: file, etag: etag, commit: commit)
        let root = folder(file.repository.name)
        let blob = "\(root)/blobs/\(etag)"
        let pointer = "\(root)/snapshots/\(commit)/\(file.path)"
        if let partial {
            try Disk.rename(partial, to: blob)
            Disk.syncFolder("\(root)/blobs")
        }
        let reference = "\(root)/refs/\(file.repository.revision)"
        if file.repository.revision != commit,
            replacingReference || Disk.entry(reference) == nil,
            Disk.shortText(reference) != commit
        {
            if let parent = Disk.parent(of: reference) { try Disk.makeFolder(parent) }
            try writeAtomically(commit, to: reference, by: "\(root)/.reference-\(etag)")
        }
        if let parent = Disk.parent(of: pointer) { try Disk.makeFolder(parent) }
        let depth = file.path.split(separator: "/").count - 1
        let target = String(repeating: "../", count: depth + 2) + "blobs/\(etag)"
        // The file is found from here on, so this comes last.
        // Half-made names lie where neither Python nor a listing looks, should we die now.
        try link(pointer, to: blob, target, by: "\(root)/.link-\(etag)")
        return pointer
    }

    private func link(
        _ pointer: String, to blob: String, _ target: String, by temporary: String
    ) throws {
        if Disk.linkTarget(pointer) == target { return }
        try Disk.remove(temporary)
        if symlink(target, temporary) == 0 { return try Disk.rename(temporary, to: pointer) }
        guard [EPERM, EOPNOTSUPP, ENOSYS].contains(errno) else {
            throw Disk.failure("link", pointer, errno)
        }
        // A file system without links: the file itself goes into the snapshot, as Python does it.
        try Disk.rename(blob, to: pointer)
    }
}
