// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import AsyncHTTPClient
import MartletCore
import NIOCore
import NIOPosix

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A failed request, with what decides whether to repeat it.
struct TransferFailure: Error {
    /// What the user reads in the end.
    var error: MartletError
    /// Whether the same request may succeed later.
    var isTransient: Bool
    /// Seconds the server asked to wait.
    var retryAfterSeconds: Int?

    init(_ error: MartletError, isTransient: Bool, retryAfterSeconds: Int? = nil) {
        self.error = error
        self.isTransient = isTransient
        self.retryAfterSeconds = retryAfterSeconds
    }

    /// A failure that may be over at the next attempt.
    init(_ message: String) { self.init(MartletError(.network, message), isTransient: true) }

    /// A lower layer's error in words; cancellation and our own errors pass unchanged.
    static func describing(
        _ error: any Error, _ address: WebAddress, proxy: ProxySettings.Proxy? = nil
    ) -> any Error {
        func failure(_ message: String, mend: String? = nil, isTransient: Bool = true) -> Self {
            Self(
                MartletError(.network, message, mend: mend, context: ["host": address.host]),
                isTransient: isTransient)
        }
        let place =
            proxy.map { "the proxy \($0.host):\($0.port)" } ?? "\(address.host):\(address.port)"
        let mend = "Check the network, HF_ENDPOINT and HTTPS_PROXY"
        switch error {
        case is TransferFailure, is MartletError, is CancellationError: return error
        case let error as NIOConnectionError:
            let reason =
                error.connectionErrors.first.map { Self.reason($0.error) }
                ?? "its name cannot be resolved"
            return failure("cannot connect to \(place): \(reason)", mend: mend)
        case let error as IOError where unreachable.contains(error.errnoCode):
            return failure("cannot connect to \(place): \(reason(error))", mend: mend)
        case let error as HTTPClientError:
            if error == .cancelled { return CancellationError() }
            if timeouts.contains(error) {
                return failure("\(place) does not answer in time", mend: mend)
            }
            if error == .proxyAuthenticationRequired || error == .invalidProxyResponse {
                return failure(
                    "the proxy refuses the way to \(address.host): \(error)",
                    mend: "Check HTTPS_PROXY, its name and password, and NO_PROXY",
                    isTransient: false)
            }
            let isClosed = error == .remoteConnectionClosed || error == .uncleanShutdown
            let reason = isClosed ? "the server closed it" : short(error)
            return failure("the connection to \(address.host) failed: \(reason)")
        default:
            let text = String(describing: error)
            guard text.lowercased().contains("certificate") else {
                return failure("the connection to \(address.host) failed: \(short(error))")
            }
            return failure(
                "the certificate of \(address.host) is not trusted: \(short(error))",
                mend: "Set SSL_CERT_FILE to a file with your certificate authorities",
                isTransient: false)
        }
    }

    /// The system's word for an error, or what the library says.
    private static func reason(_ error: any Error) -> String {
        guard let error = error as? IOError, let text = strerror(error.errnoCode) else {
            return short(error)
        }
        return String(cString: text)
    }

    /// System errors of a connection that never came to be.
    private static let unreachable = [
        ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ETIMEDOUT,
    ]

    private static let timeouts: [HTTPClientError] = [
        .connectTimeout, .readTimeout, .deadlineExceeded, .tlsHandshakeTimeout,
        .getConnectionFromPoolTimeout, .httpProxyHandshakeTimeout,
    ]

    private static func short(_ error: any Error) -> String {
        String(String(describing: error).prefix(200))
    }
}
