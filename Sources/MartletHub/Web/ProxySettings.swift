// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Which proxy a request goes through, by the variables that curl and Python read.
public struct ProxySettings: Sendable, Hashable {
    /// One HTTP proxy.
    public struct Proxy: Sendable, Hashable {
        /// Host name or address.
        public var host: String
        /// Port.
        public var port: Int
        /// Name and password as `name:password`, decoded.
        public var credentials: String?
    }

    /// For `https` addresses.
    public var https: Proxy?
    /// For `http` addresses.
    public var http: Proxy?
    /// Hosts reached directly; `*` is all of them.
    public var exceptions: [String]

    /// No proxy at all.
    public init() { exceptions = [] }

    /// Reads `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`, lower case first.
    ///
    /// `HTTP_PROXY` in upper case is not read where `REQUEST_METHOD` is set: a web server would
    /// let its visitors choose it.
    public init(environment: [String: String]) {
        func value(_ name: String) -> String? {
            if let value = environment[name], !value.isEmpty { return value }
            if name == "http_proxy", environment["REQUEST_METHOD"] != nil { return nil }
            return environment[name.uppercased()].flatMap { $0.isEmpty ? nil : $0 }
        }
        let all = value("all_proxy")
        https = (value("https_proxy") ?? all).flatMap(Self.parse)
        http = (value("http_proxy") ?? all).flatMap(Self.parse)
        exceptions = (value("no_proxy") ?? "").split { $0 == "," || $0 == " " }.map {
            $0.lowercased()
        }
    }

    /// The proxy for an address; nil goes directly.
    package func proxy(for address: WebAddress) -> Proxy? {
        let host = address.host.lowercased()
        for exception in exceptions {
            if exception == "*" { return nil }
            let name = exception.hasPrefix(".") ? String(exception.dropFirst()) : exception
            if name == host || host.hasSuffix(".\(name)") || name == "\(host):\(address.port)" {
                return nil
            }
        }
        return address.scheme == "https" ? https : http
    }

    private static func parse(_ text: String) -> Proxy? {
        let rest = text.droppingPrefix("http://") ?? text
        // AsyncHTTPClient speaks plain HTTP to a proxy; SOCKS and TLS proxies are passed over.
        guard !rest.contains("://") else { return nil }
        let authority = rest.prefix { $0 != "/" }
        var credentials: String?
        var place = authority
        if let at = authority.lastIndex(of: "@") {
            credentials = percentDecoded(String(authority[..<at]))
            place = authority[authority.index(after: at)...]
        }
        guard let (host, port) = WebAddress.splitAuthority(String(place), standardPort: 80) else {
            return nil
        }
        return Proxy(host: host, port: port, credentials: credentials)
    }
}
