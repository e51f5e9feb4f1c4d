// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import NIOCore
import NIOHTTP1

/// What a site says about a file before it is fetched.
struct HubMetadata: Sendable, Hashable {
    /// Commit the revision stands for, or what names the snapshot instead.
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

    /// Takes what may become parts of paths.
    ///
    /// - Throws: `MartletError` `.network` for names that could lead elsewhere.
    init(commit: String, etag: String, byteCount: Int?, of path: String) throws {
        // A petabyte at most: then no sum of lengths overflows.
        guard HubNames.isComponent(commit), HubNames.isComponent(etag),
            (0...1 << 50).contains(byteCount ?? 0)
        else {
            throw MartletError(
                .network, "the hub names \(path) by an unusable commit, ETag or length")
        }
        self.commit = commit
        self.etag = etag
        self.byteCount = byteCount
    }
}

/// The files of a repository at a commit.
struct HubListing: Sendable {
    /// Paths in the order of the site.
    var paths: [String] = []
    /// What is known of files by path; the site may not say it here.
    var metadata: [String: HubMetadata] = [:]
}

/// What the protocols of the sites have in common.
struct HubClient: Sendable {
    private static let listingLimit = 1 << 26

    let web: WebClient
    let configuration: HubConfiguration
    let repository: HubRepository
    /// Told about repetitions.
    let observe: PullObserver
    /// Whether another source is at hand, so that an unreachable hub is given up soon.
    let hasAlternative: Bool

    var endpoint: String { configuration.access(repository.site).endpoint }
    /// The page for people.
    var page: String {
        repository.site == .modelScope
            ? "\(endpoint)/models/\(repository.name)" : "\(endpoint)/\(repository.name)"
    }

    /// Asks for the files of the repository.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func listing() async throws -> HubListing {
        switch repository.site {
        case .huggingFace: try await huggingFaceListing()
        case .modelScope: try await modelScopeListing()
        }
    }

    /// Asks for one file's commit, name of content and length.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func metadata(_ path: String) async throws -> HubMetadata {
        switch repository.site {
        case .huggingFace: return try await huggingFaceMetadata(path)
        case .modelScope:
            guard let metadata = try await modelScopeListing().metadata[path] else {
                throw noFile(path)
            }
            return metadata
        }
    }

    /// Address of a file's bytes at a commit.
    func address(_ path: String, commit: String) throws -> WebAddress {
        switch repository.site {
        case .huggingFace:
            try WebAddress(
                "\(endpoint)/\(repository.name)/resolve/"
                    + percentEncoded(commit, keepingSlashes: false) + "/"
                    + percentEncoded(path, keepingSlashes: true))
        case .modelScope:
            try WebAddress(
                "\(endpoint)/api/v1/models/\(repository.name)/repo?Revision="
                    + percentEncoded(commit, keepingSlashes: false) + "&FilePath="
                    + percentEncoded(path, keepingSlashes: false))
        }
    }

    /// Reads a JSON answer.
    ///
    /// - Throws: `MartletError`, `CancellationError`.
    func json(_ path: String) async throws -> JSONValue {
        let address = try WebAddress("\(endpoint)\(path)")
        return try await repeating {
            let response = try await web.send(.GET, address)
            guard response.status == 200 else { throw refusal(response, nil) }
            let bytes = try await web.bytes(response, limit: Self.listingLimit)
            do {
                return try JSONValue.parse(bytes)
            } catch {
                throw MartletError(
                    .network, "\(endpoint) is no hub: its listing is no JSON",
                    mend: "Check \(endpointVariable)")
            }
        }
    }

    var endpointVariable: String {
        repository.site == .modelScope ? "MODELSCOPE_ENDPOINT" : "HF_ENDPOINT"
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

    /// An entity tag without `W/` and quotes.
    static func plainTag(_ tag: String) -> String {
        String((tag.droppingPrefix("W/") ?? tag).drop { $0 == "\"" }.prefix { $0 != "\"" })
    }

    /// The failure an error status stands for.
    ///
    /// - Parameters:
    ///   - path: The file that was asked for; nil if it was the repository.
    func refusal(_ response: WebClient.Response, _ path: String?) -> TransferFailure {
        let word = response.header("X-Error-Code") ?? ""
        let status = "HTTP \(response.status)"
        let subject = path.map { HubFile(repository, $0).description } ?? "\(repository)"
        let token = repository.site == .modelScope ? "MODELSCOPE_API_TOKEN" : "HF_TOKEN"
        let tokenPage =
            repository.site == .modelScope
            ? "\(endpoint)/my/myaccesstoken" : "\(endpoint)/settings/tokens"
        let error: MartletError
        switch (response.status, word) {
        case (401, "GatedRepo"), (403, "GatedRepo"):
            error = MartletError(
                .network, "\(repository) is gated (\(status))",
                mend: "Accept its licence at \(page), then set \(token) to a token of that account "
                    + "(\(tokenPage))")
        case (401, _), (403, _):
            let isAnonymous = configuration.access(repository.site).token == nil
            error = MartletError(
                .network, "the hub refuses \(repository) (\(status))",
                mend: isAnonymous
                    ? "It is private, gated or does not exist: check \(page), or set \(token) "
                        + "(\(tokenPage))"
                    : "Check the name, and that \(token) may read it",
                context: ["missing": "repository"])
        case (404, "EntryNotFound"): return TransferFailure(noFile(path ?? ""), isTransient: false)
        case (404, "RevisionNotFound"):
            error = MartletError(
                .notFound, "\(repository.name) has no revision '\(repository.revision)'",
                mend: "Leave out @\(repository.revision) for the main one")
        case (404, _):
            error = MartletError(
                .notFound, "the hub has no \(subject) (\(status))",
                mend: "Check the name at \(page)",
                context: ["missing": "repository"])
        default:
            let wait = response.header("Retry-After").flatMap { Int($0) }.map { max(0, $0) }
            return TransferFailure(
                MartletError(
                    .network, "\(response.address.host) answers \(status) for \(subject)",
                    mend: response.status == 429 ? "Too many requests: wait, or set \(token)" : nil,
                    context: ["status": String(response.status)]),
                isTransient: [408, 425, 429, 500, 502, 503, 504].contains(response.status),
                retryAfterSeconds: wait)
        }
        return TransferFailure(error.adding("status", "\(response.status)"), isTransient: false)
    }

    /// The repository lacks a file.
    func noFile(_ path: String) -> MartletError {
        MartletError(
            .notFound, "\(repository) has no file '\(path)'", mend: "See \(page)",
            context: ["missing": "file"])
    }
}
