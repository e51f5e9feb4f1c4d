// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import NIOCore
import NIOHTTP1

/// What the hub says about a file before it is fetched.
struct HubMetadata: Sendable, Hashable {
    /// Commit the revision stands for.
    let commit: String
    /// Name of the content; SHA-256 for large files.
    let etag: String
    /// Length in bytes, if stated.
    let byteCount: Int?

    /// What the bytes must hash to.
    var expectation: ContentHash.Expectation {
        if HubNames.isHexadecimal(etag, count: 64) { return .sha256(etag) }
        if HubNames.isHexadecimal(etag, count: 40), let byteCount {
            return .gitBlob(etag, byteCount: byteCount)
        }
        return .unknown
    }
}

/// The Hugging Face protocol over a `WebClient`.
struct HubClient: Sendable {
    let web: WebClient
    let configuration: HubConfiguration
    /// Told about repetitions.
    let observe: PullObserver
    /// Whether another source is at hand, so that an unreachable hub is given up soon.
    let hasAlternative: Bool

    /// Asks for a file's commit, name of content and length.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func metadata(_ file: HubFile) async throws -> HubMetadata {
        let address = try address(file, revision: file.revision)
        return try await repeating { try await readMetadata(file, address) }
    }

    /// Address of a file at a revision.
    func address(_ file: HubFile, revision: String) throws -> WebAddress {
        let revision = percentEncoded(revision, keepingSlashes: false)
        let path = percentEncoded(file.path, keepingSlashes: true)
        return try WebAddress(
            "\(configuration.endpoint)/\(file.repository)/resolve/\(revision)/\(path)")
    }

    /// Runs a request until it succeeds, fails for good or patience ends.
    func repeating<Result>(_ body: () async throws -> Result) async throws -> Result {
        let clock = ContinuousClock()
        let start = clock.now
        var repetition = 0
        while true {
            do {
                return try await body()
            } catch let failure as TransferFailure {
                repetition += 1
                let wait = configuration.retry.delay(
                    repetition: repetition, retryAfterSeconds: failure.retryAfterSeconds)
                let spent = Int((clock.now - start) / .milliseconds(1))
                let isPatient =
                    !hasAlternative || spent + wait <= configuration.retry.patienceMilliseconds
                guard failure.isTransient, repetition <= configuration.retry.limit, isPatient else {
                    throw failure.error
                }
                try await pause(wait, repetition, failure)
            }
        }
    }

    /// Waits before a repetition.
    func pause(_ milliseconds: Int, _ repetition: Int, _ failure: TransferFailure) async throws {
        observe(
            .retry(
                repetition: repetition, limit: configuration.retry.limit,
                delayMilliseconds: milliseconds, reason: failure.error.message))
        try await Task.sleep(for: .milliseconds(milliseconds))
    }

    private func readMetadata(_ file: HubFile, _ address: WebAddress) async throws -> HubMetadata {
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
        guard response.status < 400 else { throw refusal(response, file) }
        if response.status == 200 {
            etag = etag ?? response.header("ETag")
            byteCount = byteCount ?? response.header("Content-Length").flatMap { Int($0) }
        }
        guard let commit, let etag = etag.map(Self.plainTag) else {
            throw MartletError(
                .network,
                "\(configuration.endpoint) is no hub: its answer lacks X-Repo-Commit or an ETag",
                mend: "Check HF_ENDPOINT")
        }
        guard HubNames.isComponent(commit), HubNames.isComponent(etag), byteCount ?? 0 >= 0 else {
            throw MartletError(
                .network, "the hub names \(file) by an unusable commit, ETag or length")
        }
        return HubMetadata(commit: commit, etag: etag, byteCount: byteCount)
    }

    /// An entity tag without `W/` and quotes.
    static func plainTag(_ tag: String) -> String {
        String((tag.droppingPrefix("W/") ?? tag).drop { $0 == "\"" }.prefix { $0 != "\"" })
    }

    /// The failure an error status stands for.
    func refusal(_ response: WebClient.Response, _ file: HubFile) -> TransferFailure {
        let page = "\(configuration.endpoint)/\(file.repository)"
        let word = response.header("X-Error-Code") ?? ""
        func fatal(_ code: MartletError.Code, _ message: String, _ mend: String) -> TransferFailure
        {
            TransferFailure(
                MartletError(
                    code, message, mend: mend,
                    context: ["status": String(response.status), "repository": file.repository]),
                isTransient: false)
        }
        switch response.status {
        case 401, 403:
            if word == "GatedRepo" {
                return fatal(
                    .network, "\(file.repository) is gated (HTTP \(response.status))",
                    "Accept its licence at \(page), then set HF_TOKEN to a token that may read it")
            }
            let hint =
                configuration.token == nil
                ? "It is private or does not exist: check the name, or set HF_TOKEN"
                : "Check the name, and that HF_TOKEN may read it"
            return fatal(
                .network, "the hub refuses \(file.repository) (HTTP \(response.status))", hint)
        case 404:
            switch word {
            case "EntryNotFound":
                return fatal(
                    .notFound, "\(file.repository) has no file '\(file.path)'",
                    "See \(page)/tree/main")
            case "RevisionNotFound":
                return fatal(
                    .notFound, "\(file.repository) has no revision '\(file.revision)'",
                    "Leave out @\(file.revision) for the main one")
            default:
                return fatal(
                    .notFound, "the hub has no \(file) (HTTP 404)", "Check the name at \(page)")
            }
        default:
            let isTransient = [408, 425, 429, 500, 502, 503, 504].contains(response.status)
            let wait = response.header("Retry-After").flatMap { Int($0) }.map { max(0, $0) }
            return TransferFailure(
                MartletError(
                    .network,
                    "\(response.address.host) answers HTTP \(response.status) for \(file)",
                    mend: response.status == 429 ? "Too many requests: wait, or set HF_TOKEN" : nil,
                    context: ["status": String(response.status)]),
                isTransient: isTransient, retryAfterSeconds: wait)
        }
    }
}
