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

    /// A lower layer's error in words; cancellation and our own errors pass unchanged.
    static func describing(_ error: any Error, _ address: WebAddress) -> any Error {
        switch error {
        case is TransferFailure, is MartletError, is CancellationError: return error
        case let error as HTTPClientError where error == .cancelled: return CancellationError()
        case let error as HTTPClientError: return client(error, address)
        case let error as NIOConnectionError:
            let reason =
                error.connectionErrors.first.map { ioReason($0.error) }
                ?? "its name cannot be resolved"
            return TransferFailure(
                MartletError(
                    .network, "cannot connect to \(address.host):\(address.port): \(reason)",
                    mend: "Check the network, HF_ENDPOINT and HTTPS_PROXY",
                    context: ["host": address.host]), isTransient: true)
        case let error as IOError where unreachable.contains(error.errnoCode):
            let reason = strerror(error.errnoCode).map { String(cString: $0) } ?? "no way there"
            return TransferFailure(
                MartletError(
                    .network, "cannot connect to \(address.host):\(address.port): \(reason)",
                    mend: "Check the network, HF_ENDPOINT and HTTPS_PROXY",
                    context: ["host": address.host]), isTransient: true)
        default:
            let text = String(describing: error)
            guard text.contains("CERTIFICATE") || text.contains("certificate") else {
                return TransferFailure(
                    MartletError(
                        .network, "the connection to \(address.host) failed: \(ioReason(error))",
                        context: ["host": address.host]), isTransient: true)
            }
            return TransferFailure(
                MartletError(
                    .network, "the certificate of \(address.host) is not trusted: \(text)",
                    mend: "Set SSL_CERT_FILE to a file with your certificate authorities",
                    context: ["host": address.host]), isTransient: false)
        }
    }

    /// System errors of a connection that never came to be.
    private static let unreachable = [
        ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ETIMEDOUT,
    ]

    private static func client(_ error: HTTPClientError, _ address: WebAddress) -> TransferFailure {
        let timeouts: [HTTPClientError] = [
            .connectTimeout, .readTimeout, .deadlineExceeded, .tlsHandshakeTimeout,
            .getConnectionFromPoolTimeout, .httpProxyHandshakeTimeout,
        ]
        if timeouts.contains(error) {
            return TransferFailure(
                MartletError(
                    .network, "\(address.host):\(address.port) does not answer in time",
                    mend: "Check the network, HF_ENDPOINT and HTTPS_PROXY",
                    context: ["host": address.host]), isTransient: true)
        }
        if error == .proxyAuthenticationRequired || error == .invalidProxyResponse {
            return TransferFailure(
                MartletError(
                    .network, "the proxy refuses the way to \(address.host): \(error)",
                    mend: "Check HTTPS_PROXY, its name and password, and NO_PROXY"),
                isTransient: false)
        }
        let closed: [HTTPClientError] = [.remoteConnectionClosed, .uncleanShutdown]
        let reason = closed.contains(error) ? "the server closed it" : String(describing: error)
        return TransferFailure(
            MartletError(.network, "the connection to \(address.host) failed: \(reason)"),
            isTransient: true)
    }

    /// The reason inside a system call's error, without the call.
    private static func ioReason(_ error: any Error) -> String {
        let text = String(describing: error)
        return text.count <= 200 ? text : String(text.prefix(200))
    }
}
