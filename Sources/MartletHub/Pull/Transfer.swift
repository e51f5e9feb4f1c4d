// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Files of one repository on their way into the cache, several side by side.
struct Transfer {
    /// A file in its place.
    struct Fetched: Sendable {
        let path: String
        let byteCount: Int
        /// Nil where the cache had it.
        let sha256: String?
    }

    let client: HubClient
    let cache: HubCache
    /// All files by path.
    let files: [String: HubMetadata]
    private let meter: TransferMeter

    init(client: HubClient, cache: HubCache, files: [String: HubMetadata]) {
        self.client = client
        self.cache = cache
        self.files = files
        let total = files.values.reduce(Int?.some(0)) { total, file in
            total.flatMap { total in file.byteCount.map { total + $0 } }
        }
        meter = TransferMeter(total: total, fileCount: files.count, observe: client.observe)
    }

    /// Refuses to begin what the disk cannot hold.
    ///
    /// - Throws: `MartletError` `.io`.
    private func reserve() throws {
        let blobs = "\(cache.folder(client.repository.name))/blobs"
        try Disk.makeFolder(blobs)
        var missing = 0
        for metadata in files.values where Disk.entry("\(blobs)/\(metadata.etag)") == nil {
            let partial = Disk.entry("\(blobs)/\(metadata.etag).incomplete")?.byteCount ?? 0
            missing += max(0, (metadata.byteCount ?? 0) - partial)
        }
        try Disk.reserve(
            missing, largest: files.values.compactMap(\.byteCount).max() ?? 0, at: blobs,
            for: "\(client.repository)")
    }

    /// Fetches some of the files, a few at a time; the first failure ends the others.
    ///
    /// - Returns: The files in the order of the paths.
    /// - Throws: `MartletError`, `CancellationError`, `Download.Changed`.
    func fetch(_ paths: [String]) async throws -> [Fetched] {
        try await withThrowingTaskGroup(of: (Int, Fetched).self) { group in
            var fetched: [Int: Fetched] = [:]
            for (index, path) in paths.enumerated() {
                if index >= client.configuration.concurrency,
                    let (place, file) = try await group.next()
                {
                    fetched[place] = file
                }
                group.addTask { (index, try await fetch(path)) }
            }
            for try await (place, file) in group { fetched[place] = file }
            return paths.indices.compactMap { fetched[$0] }
        }
    }

    /// Fetches one file, unless the cache has its content, and puts it into the snapshot.
    ///
    /// - Throws: As `fetch` for several.
    func fetch(_ path: String) async throws -> Fetched {
        let file = HubFile(client.repository, path)
        guard let metadata = files[path] else { throw client.noFile(path) }
        try cache.checkFolders(for: file, etag: metadata.etag, commit: metadata.commit)
        let blob = cache.blob(file.repository.name, metadata.etag)
        let lock = try await FileLock.acquire(cache.lock(file.repository.name, metadata.etag)) {
            client.observe(.waiting(file.description))
        }
        defer { lock.release() }
        var partial: String?
        var result: (sha256: String?, byteCount: Int)
        if let entry = Disk.entry(blob), entry.isFile,
            metadata.byteCount ?? entry.byteCount == entry.byteCount
        {
            result = (nil, entry.byteCount)
            meter.skip(entry.byteCount)
        } else {
            try reserve()
            let place = "\(blob).incomplete"
            partial = place
            do {
                result = try await Download(
                    client: client, file: file, metadata: metadata, path: place, meter: meter
                ).run()
            } catch let changed as Download.Changed {
                try Disk.remove(place)
                throw changed
            }
            try refusePointer(file, place, result.byteCount)
        }
        let pointer = try cache.place(
            partial, as: metadata.etag, file, commit: metadata.commit, replacingReference: true)
        meter.finishFile()
        if files.count > 1 { client.observe(.file(path, byteCount: result.byteCount)) }
        return Fetched(path: pointer, byteCount: result.byteCount, sha256: result.sha256)
    }

    /// A repository can hold a pointer as an ordinary file, hash and length in order.
    private func refusePointer(_ file: HubFile, _ place: String, _ byteCount: Int) throws {
        guard byteCount <= LargeFilePointer.lengthLimit,
            LargeFilePointer.isOne(try MappedFile.map(place).withUnsafeBytes(Array.init))
        else { return }
        try Disk.remove(place)
        throw LargeFilePointer.error(file, sender: client.endpoint)
    }
}
