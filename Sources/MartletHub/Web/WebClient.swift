// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import AsyncHTTPClient
import MartletCore
import NIOCore
import NIOHTTP1
import NIOSSL
import Synchronization

/// Sends requests, directly or through proxies, and follows redirects without leaking the token.
final class WebClient: Sendable {
    /// An answer whose body has not been read yet.
    struct Response: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: HTTPClientResponse.Body
        /// Where the answer came from, after redirects.
        let address: WebAddress

        /// The first header of a name, whatever its case.
        func header(_ name: String) -> String? { headers.first(name: name) }
    }

    private static let redirectLimit = 10

    private let configuration: HubConfiguration
    private let trust: NIOSSLTrustRoots
    private let endpoint: WebAddress
    /// What shows the endpoint who we are.
    private let credentials: HTTPHeaders
    private let clients = Mutex<[ProxySettings.Proxy?: HTTPClient]>([:])

    /// Prepares clients; connections are opened on demand.
    ///
    /// - Throws: `MartletError` if the endpoint is malformed or the certificate file is absent.
    private init(_ configuration: HubConfiguration, _ site: HubSite) throws {
        self.configuration = configuration
        let access = configuration.access(site)
        endpoint = try WebAddress(access.endpoint)
        var credentials = HTTPHeaders()
        if let token = access.token {
            credentials.add(name: "Authorization", value: "Bearer \(token)")
            if site == .modelScope {
                // Some of its addresses read this one only.
                credentials.add(name: "Cookie", value: "m_session_id=\(token)")
            }
        }
        self.credentials = credentials
        if let file = configuration.certificateFile {
            guard Disk.entry(file)?.isFile == true else {
                throw MartletError(
                    .notFound, "SSL_CERT_FILE names \(file), which is no file",
                    mend: "Correct or unset SSL_CERT_FILE")
            }
            trust = .file(file)
        } else {
            trust = .default
        }
    }

    /// Runs a closure with a client that is shut down afterwards.
    ///
    /// - Throws: What the closure throws.
    static func with<Result>(
        _ configuration: HubConfiguration, _ site: HubSite,
        _ body: (WebClient) async throws -> Result
    ) async throws -> Result {
        let client = try WebClient(configuration, site)
        do {
            let result = try await body(client)
            await client.shutdown()
            return result
        } catch {
            await client.shutdown()
            throw error
        }
    }

    /// Sends a request and follows redirects.
    ///
    /// The token goes to the endpoint's own scheme, host and port only.
    ///
    /// - Parameters:
    ///   - stop: Looks at a redirect; true takes it as the answer.
    /// - Throws: `TransferFailure`, `MartletError`, `CancellationError`.
    func send(
        _ method: HTTPMethod, _ address: WebAddress, headers: HTTPHeaders = [:],
        deadlineMilliseconds: Int? = nil, stop: (Response) -> Bool = { _ in false }
    ) async throws -> Response {
        var place = address
        for _ in 0...Self.redirectLimit {
            let response = try await exchange(method, place, headers, deadlineMilliseconds)
            guard (300..<400).contains(response.status), let location = response.header("Location")
            else { return response }
            if stop(response) { return response }
            place = try place.following(location)
        }
        throw MartletError(
            .network, "\(address.host) redirects more than \(Self.redirectLimit) times")
    }

    /// The whole body of an answer.
    ///
    /// - Throws: `TransferFailure`, `MartletError`, `CancellationError`.
    func bytes(_ response: Response, limit: Int) async throws -> [UInt8] {
        do {
            return Array(try await response.body.collect(upTo: limit).readableBytesView)
        } catch is NIOTooManyBytesError {
            throw MartletError(
                .limitExceeded, "\(response.address.host) answers with more than \(limit) bytes")
        } catch {
            throw TransferFailure.describing(error, response.address)
        }
    }

    private func exchange(
        _ method: HTTPMethod, _ address: WebAddress, _ headers: HTTPHeaders, _ deadline: Int?
    ) async throws -> Response {
        var request = HTTPClientRequest(url: address.description)
        request.method = method
        request.headers = headers
        request.headers.replaceOrAdd(name: "User-Agent", value: "martlet")
        request.headers.replaceOrAdd(name: "Accept-Encoding", value: "identity")
        if address.hasSameOrigin(as: endpoint) { request.headers.add(contentsOf: credentials) }
        do {
            let client = client(for: address)
            let end: NIODeadline =
                deadline.map { .now() + .milliseconds(Int64($0)) } ?? .distantFuture
            let answer = try await client.execute(request, deadline: end)
            return Response(
                status: Int(answer.status.code), headers: answer.headers, body: answer.body,
                address: address)
        } catch {
            throw TransferFailure.describing(
                error, address, proxy: configuration.proxies.proxy(for: address))
        }
    }

    private func client(for address: WebAddress) -> HTTPClient {
        let proxy = configuration.proxies.proxy(for: address)
        return clients.withLock { clients in
            if let client = clients[proxy] { return client }
            let client = makeClient(proxy)
            clients[proxy] = client
            return client
        }
    }

    private func makeClient(_ proxy: ProxySettings.Proxy?) -> HTTPClient {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = trust
        var settings = HTTPClient.Configuration(
            tlsConfiguration: tls, redirectConfiguration: .disallow,
            timeout: .init(
                connect: .milliseconds(Int64(configuration.connectTimeoutMilliseconds)),
                read: .milliseconds(Int64(configuration.readTimeoutMilliseconds))))
        settings.httpVersion = .http1Only
        // A dead host must be known at once: our own policy decides about repetitions.
        settings.connectionPool.retryConnectionEstablishment = false
        if let proxy {
            settings.proxy = .server(
                host: proxy.host, port: proxy.port,
                authorization: proxy.credentials.map { credentials in
                    let parts = credentials.split(
                        separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                    return .basic(
                        username: String(parts.first ?? ""),
                        password: String(parts.dropFirst().first ?? ""))
                })
        }
        return HTTPClient(
            eventLoopGroup: HTTPClient.defaultEventLoopGroup, configuration: settings)
    }

    private func shutdown() async {
        let open = clients.withLock { clients in
            defer { clients = [:] }
            return Array(clients.values)
        }
        for client in open { try? await client.shutdown() }
    }
}
