// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Where models come from and where they are kept; read from the variables Hugging Face users know.
public struct HubConfiguration: Sendable {
    /// One site: its address, our token for it and where its files are kept.
    public struct Access: Sendable, Hashable {
        /// Address without a trailing slash.
        public var endpoint: String
        /// Access token, sent to the endpoint's own scheme, host and port only.
        public var token: String?
        /// Folder of the cache; empty where none is known.
        public var cacheFolder: String
    }

    /// `HF_ENDPOINT`; `HF_TOKEN` or the file `HF_TOKEN_PATH`; `HF_HUB_CACHE`, `HF_HOME`/hub or
    /// `XDG_CACHE_HOME`/huggingface/hub.
    public var huggingFace: Access
    /// `MODELSCOPE_ENDPOINT`, `MODELSCOPE_API_TOKEN`, `MODELSCOPE_CACHE`/models.
    public var modelScope: Access
    /// Whether nothing may be fetched (`HF_HUB_OFFLINE`).
    public var isOffline: Bool
    /// File of certificate authorities in PEM form; nil takes the system's (`SSL_CERT_FILE`).
    public var certificateFile: String?
    /// Proxies by scheme (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    public var proxies: ProxySettings
    /// Milliseconds to wait for a connection.
    public var connectTimeoutMilliseconds: Int
    /// Milliseconds to wait for the next byte (`HF_HUB_DOWNLOAD_TIMEOUT`, in seconds).
    public var readTimeoutMilliseconds: Int
    /// Milliseconds to wait for a file's description (`HF_HUB_ETAG_TIMEOUT`, in seconds).
    public var metadataTimeoutMilliseconds: Int
    /// Files that are fetched side by side.
    public var concurrency = 4
    /// How failed requests are repeated.
    public var retry: RetryPolicy
    /// The user's folder; empty where none is known.
    public var home: String
    /// Variables that child processes get.
    public var environment: [String: String]
    /// Whether pip writes to standard error; otherwise its words are kept for the error message.
    public var showsChildOutput = false

    /// Reads the variables.
    ///
    /// - Parameters:
    ///   - environment: Variables by name; nil takes those of this process.
    public init(environment: [String: String]? = nil) {
        self.init(
            environment: environment ?? ProcessEnvironment.current(),
            userFolder: HomeFolder.ofUser)
    }

    /// Reads given variables.
    ///
    /// - Parameters:
    ///   - environment: Variables by name.
    ///   - userFolder: The user's folder where `HOME` is not set.
    package init(environment: [String: String], userFolder: String?) {
        func value(_ names: String...) -> String? {
            names.lazy.compactMap { environment[$0] }.first { !$0.isEmpty }
        }
        func isTrue(_ name: String) -> Bool {
            ["1", "ON", "YES", "TRUE"].contains(environment[name]?.uppercased() ?? "")
        }
        func milliseconds(_ name: String, _ standard: Int) -> Int {
            guard let seconds = value(name).flatMap({ Int($0) }), (1...86_400).contains(seconds)
            else { return standard }
            return seconds * 1000
        }
        let home = value("HOME") ?? userFolder ?? ""
        func expand(_ path: String) -> String {
            var path = path.droppingPrefix("~/").map { home.isEmpty ? "" : "\(home)/\($0)" } ?? path
            while path.count > 1, path.hasSuffix("/") { path.removeLast() }
            return path
        }
        // A folder in one that is not known is not known either.
        func below(_ folder: String, _ name: String) -> String {
            folder.isEmpty ? "" : "\(folder)/\(name)"
        }
        let cacheHome = value("XDG_CACHE_HOME") ?? below(home, ".cache")
        let hfHome = expand(value("HF_HOME") ?? below(cacheHome, "huggingface"))
        let token =
            value("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
            ?? Disk.shortText(expand(value("HF_TOKEN_PATH") ?? below(hfHome, "token")))
        let scopeHome = expand(value("MODELSCOPE_CACHE") ?? below(cacheHome, "modelscope"))

        self.home = home
        self.environment = environment
        huggingFace = Access(
            endpoint: expand(value("HF_ENDPOINT") ?? "https://huggingface.co"),
            token: token?.isEmpty ?? true ? nil : token,
            cacheFolder: expand(
                value("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? below(hfHome, "hub")))
        modelScope = Access(
            endpoint: expand(value("MODELSCOPE_ENDPOINT") ?? "https://modelscope.cn"),
            token: value("MODELSCOPE_API_TOKEN"), cacheFolder: below(scopeHome, "models"))
        isOffline = isTrue("HF_HUB_OFFLINE") || isTrue("TRANSFORMERS_OFFLINE")
        certificateFile = value("SSL_CERT_FILE").map(expand)
        proxies = ProxySettings(environment: environment)
        connectTimeoutMilliseconds = 5_000
        readTimeoutMilliseconds = milliseconds("HF_HUB_DOWNLOAD_TIMEOUT", 30_000)
        metadataTimeoutMilliseconds = milliseconds("HF_HUB_ETAG_TIMEOUT", 8_000)
        retry = RetryPolicy()
    }

    /// How a site is reached.
    public func access(_ site: HubSite) -> Access {
        site == .modelScope ? modelScope : huggingFace
    }

    /// Refuses to go on without a place for models.
    ///
    /// - Throws: `MartletError` `.notFound` naming the variable that gives one.
    func checkCacheFolder(_ site: HubSite) throws {
        guard access(site).cacheFolder.isEmpty else { return }
        throw MartletError(
            .notFound,
            "neither HOME nor the system's list of users names a home folder, so models have no place",
            mend: "Set \(site == .modelScope ? "MODELSCOPE_CACHE" : "HF_HOME") to a folder")
    }

    /// The cache of a site.
    package func cache(_ site: HubSite) -> HubCache {
        HubCache(root: access(site).cacheFolder, site: site)
    }
}

/// How often and how patiently a failed request is repeated.
public struct RetryPolicy: Sendable, Hashable {
    /// Repetitions without progress before giving up.
    public var limit = 5
    /// Milliseconds before the first repetition; doubled for each further one.
    public var baseDelayMilliseconds = 500
    /// The longest wait in milliseconds, a server's `Retry-After` included.
    public var maximumDelayMilliseconds = 60_000
    /// Milliseconds to keep trying before the first answer where another source is known.
    public var patienceMilliseconds = 8_000

    /// Five repetitions, half a second first.
    public init() {}

    /// Milliseconds to wait before a repetition, counted from 1.
    package func delay(repetition: Int, retryAfterSeconds: Int?) -> Int {
        if let seconds = retryAfterSeconds {
            let wanted = seconds.multipliedReportingOverflow(by: 1000)
            return min(wanted.overflow ? .max : wanted.partialValue, maximumDelayMilliseconds)
        }
        let factor = 1 << min(max(repetition - 1, 0), 16)
        let wanted = baseDelayMilliseconds.multipliedReportingOverflow(by: factor)
        return min(wanted.overflow ? .max : wanted.partialValue, maximumDelayMilliseconds)
    }
}
