// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore
import NIOHTTP1

/// Hugging Face's protocol.
extension HubClient {
    /// `GET /api/models/NAME/revision/REVISION?blobs=true`; a mirror may leave lengths and hashes out.
    func huggingFaceListing() async throws -> HubListing {
        let revision = percentEncoded(repository.revision, keepingSlashes: false)
        let value = try await json(
            "/api/models/\(repository.name)/revision/\(revision)?blobs=true")
        guard let commit = value["sha"]?.string, let files = value["siblings"]?.array else {
            throw MartletError(
                .network, "\(endpoint) is no hub: its listing lacks sha or siblings",
                mend: "Check \(endpointVariable)")
        }
        var listing = HubListing()
        for file in files {
            guard let path = file["rfilename"]?.string, HubNames.isRelativePath(path) else {
                continue
            }
            listing.paths.append(path)
            guard let etag = file["lfs"]?["sha256"]?.string ?? file["blobId"]?.string,
                let byteCount = file["lfs"]?["size"]?.int ?? file["size"]?.int
            else { continue }
            listing.metadata[path] = try HubMetadata(
                commit: commit, etag: etag, byteCount: byteCount, of: path)
        }
        return listing
    }

    /// `HEAD /NAME/resolve/REVISION/PATH`; the first answer that knows it all counts, not the host
    /// that it redirects to.
    func huggingFaceMetadata(_ path: String) async throws -> HubMetadata {
        let address = try address(path, commit: repository.revision)
        return try await repeating {
            var commit: String?
            var etag: String?
            var byteCount: Int?
            func collect(_ response: WebClient.Response) {
                commit = commit ?? response.header("X-Repo-Commit")
                etag = etag ?? response.header("X-Linked-Etag")
                byteCount = byteCount ?? response.header("X-Linked-Size").flatMap { Int($0) }
            }
            let response = try await web.send(
                .HEAD, address, deadlineMilliseconds: configuration.metadataTimeoutMilliseconds
            ) { redirect in
                collect(redirect)
                return commit != nil && etag != nil && byteCount != nil
            }
            collect(response)
            guard response.status < 400 else { throw refusal(response, path) }
            if response.status == 200 {
                etag = etag ?? response.header("ETag")
                byteCount = byteCount ?? response.header("Content-Length").flatMap { Int($0) }
            }
            guard let commit, let etag = etag.map(Self.plainTag) else {
                throw MartletError(
                    .network,
                    "\(endpoint) is no hub: its answer lacks X-Repo-Commit or an ETag",
                    mend: "Check \(endpointVariable)")
            }
            return try HubMetadata(commit: commit, etag: etag, byteCount: byteCount, of: path)
        }
    }

    /// Names of repositories that the hub's search finds for this one's, at most 20.
    func similarRepositories() async -> [String] {
        guard repository.site == .huggingFace, let name = repository.name.split(separator: "/").last
        else { return [] }
        let query = percentEncoded(String(name), keepingSlashes: false)
        let value = try? await json("/api/models?limit=20&search=\(query)")
        return (value?.array ?? []).compactMap { $0["id"]?.string }.filter(HubNames.isRepository)
    }
}

/// ModelScope's protocol.
extension HubClient {
    /// `GET /api/v1/models/NAME/repo/files?Revision=REVISION&Recursive=True`.
    ///
    /// It names no commit: the revision names the snapshot, as ModelScope's own package has it.
    func modelScopeListing() async throws -> HubListing {
        let revision = percentEncoded(repository.revision, keepingSlashes: false)
        let value = try await json(
            "/api/v1/models/\(repository.name)/repo/files?Revision=\(revision)&Recursive=True")
        guard let files = value["Data"]?["Files"]?.array else {
            throw MartletError(
                .network,
                "\(endpoint) lists no files of \(repository): "
                    + (value["Message"]?.string ?? "its answer lacks Data.Files"),
                mend: "Check the name at \(page), and \(endpointVariable)")
        }
        var listing = HubListing()
        for file in files where file["Type"]?.string != "tree" {
            guard let path = file["Path"]?.string, HubNames.isRelativePath(path) else { continue }
            listing.paths.append(path)
            let etag = file["Sha256"]?.string ?? ""
            let byteCount = file["Size"]?.int
            // Where there is no hash the blob still needs a name, and only its length is checked.
            let name = "\(repository.revision)\0\(path)\0\(byteCount ?? 0)"
            let standIn = "unhashed-" + hexadecimal(SHA256.hash(data: Array(name.utf8)))
            listing.metadata[path] = try HubMetadata(
                commit: repository.revision, etag: etag.isEmpty ? standIn : etag,
                byteCount: byteCount, of: path)
        }
        return listing
    }
}
