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
package struct HubCache: Sendable {
    /// The folder that holds all repositories.
    package let root: String

    /// A cache in a folder, which need not exist yet.
    package init(root: String) { self.root = root }

    /// Folder of a repository.
    package func folder(_ repository: String) -> String {
        let name = repository.split(separator: "/").joined(separator: "--")
        return "\(root)/models--\(name)"
    }

    /// Where a blob lies.
    package func blob(_ repository: String, _ etag: String) -> String {
        "\(folder(repository))/blobs/\(etag)"
    }

    /// The lock file of a blob.
    package func lock(_ repository: String, _ etag: String) -> String {
        let name = repository.split(separator: "/").joined(separator: "--")
        return "\(root)/.locks/models--\(name)/\(etag).lock"
    }

    /// Where a file of a commit lies.
    package func pointer(_ file: HubFile, commit: String) -> String {
        "\(folder(file.repository))/snapshots/\(commit)/\(file.path)"
    }

    /// Checks the parts of a file's name before they become paths.
    ///
    /// - Throws: `MartletError` `.invalidArgument`.
    package static func check(_ file: HubFile) throws {
        guard HubNames.isRepository(file.repository), HubNames.isRelativePath(file.revision),
            HubNames.isRelativePath(file.path)
        else {
            throw MartletError(.invalidArgument, "'\(file)' is no file of a hub repository")
        }
    }

    /// The commit that a revision stands for in the cache.
    package func commit(_ repository: String, revision: String) -> String? {
        let text = Disk.shortText("\(folder(repository))/refs/\(revision)") ?? revision
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
            let path = pointer(file, commit: commit)
            guard let entry = Disk.entry(path), entry.isFile else { return nil }
            return byteCount == nil || byteCount == entry.byteCount ? path : nil
        }
        if let commit = commit(file.repository, revision: file.revision),
            let path = usable(commit)
        {
            return path
        }
        guard byteCount != nil else { return nil }
        return Disk.names(in: "\(folder(file.repository))/snapshots").lazy.compactMap(usable).first
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
        let blob = blob(file.repository, etag)
        let pointer = pointer(file, commit: commit)
        if let partial {
            try Disk.rename(partial, to: blob)
            Disk.syncFolder("\(folder(file.repository))/blobs")
        }
        if let parent = Disk.parent(of: pointer) { try Disk.makeFolder(parent) }
        try link(pointer, to: blob, etag, depth: file.path.split(separator: "/").count - 1)
        let reference = "\(folder(file.repository))/refs/\(file.revision)"
        if file.revision != commit, replacingReference || Disk.entry(reference) == nil,
            Disk.shortText(reference) != commit
        {
            if let parent = Disk.parent(of: reference) { try Disk.makeFolder(parent) }
            try writeAtomically(commit, to: reference)
        }
        return pointer
    }

    private func link(_ pointer: String, to blob: String, _ etag: String, depth: Int) throws {
        let target = String(repeating: "../", count: depth + 2) + "blobs/\(etag)"
        if Disk.linkTarget(pointer) == target { return }
        let temporary = "\(pointer).\(getpid()).tmp"
        try Disk.remove(temporary)
        if symlink(target, temporary) == 0 { return try Disk.rename(temporary, to: pointer) }
        guard [EPERM, EOPNOTSUPP, ENOSYS].contains(errno) else {
            throw Disk.failure("link", pointer, errno)
        }
        // A file system without links: the file itself goes into the snapshot, as Python does it.
        try Disk.rename(blob, to: pointer)
    }
}
