// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub
import NIOSSL
import Testing

private let openssl = ["/usr/bin/openssl", "/usr/local/bin/openssl"].first {
    Disk.entry($0) != nil
}

/// `https` through a proxy, with a certificate authority of one's own, as in a company.
@Suite(.enabled("openssl is needed to make a certificate") { openssl != nil })
struct ProxyTests {
    private let folder = TemporaryFolder()

    /// A certificate for hub.example that signs itself.
    private func makeCertificate() async throws -> NIOSSLContext {
        let path = folder.path
        let status = try await ChildProcess(
            try #require(openssl),
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
                + ["-subj", "/CN=hub.example", "-addext", "subjectAltName=DNS:hub.example"]
                + ["-keyout", "\(path)/key.pem", "-out", "\(path)/certificate.pem"],
            environment: ["PATH": "/usr/bin:/bin", "HOME": path], folder: path,
            output: "/dev/null", error: "\(path)/openssl.txt"
        ).wait()
        #expect(status == 0, "\(Disk.shortText("\(path)/openssl.txt") ?? "")")
        return try NIOSSLContext(
            configuration: .makeServerConfiguration(
                certificateChain: try NIOSSLCertificate.fromPEMFile("\(path)/certificate.pem").map {
                    .certificate($0)
                }, privateKey: .privateKey(NIOSSLPrivateKey(file: "\(path)/key.pem", format: .pem)))
        )
    }

    /// Nobody listens at port 1.
    @Test func aDeadProxyIsNamed() async throws {
        let hub = folder.hub(
            "http://hub.example", environment: ["HTTP_PROXY": "http://127.0.0.1:1"])
        let error = await failure { try await hub.pull(FakeHub.reference) }
        #expect(error?.code == .network)
        #expect(
            error?.description.contains(
                "cannot connect to the proxy 127.0.0.1:1: Connection refused") == true,
            "\(error?.description ?? "")")
    }

    @Test func reachesAHubThroughAProxy() async throws {
        let model = FakeRepository.sharded()
        let server = try await LoopbackServer(tls: try await makeCertificate()) { request, _ in
            model.answer(request)
        }
        let proxy = try await TunnelProxy(to: server.port)
        var environment = ["HTTPS_PROXY": "http://user:pass%21@127.0.0.1:\(proxy.port)"]
        let stranger = await failure {
            try await folder.hub("https://hub.example", environment: environment)
                .pull(FakeRepository.huggingFace)
        }
        #expect(stranger?.code == .network)
        #expect(
            stranger?.mend?.contains("SSL_CERT_FILE") == true, "\(String(describing: stranger))")

        environment["SSL_CERT_FILE"] = "\(folder.path)/certificate.pem"
        let pulled = try await folder.hub("https://hub.example", environment: environment)
            .pull(FakeRepository.huggingFace)
        #expect(Disk.names(in: pulled.path) == FakeRepository.needed)
        #expect(proxy.requests.allSatisfy { $0.hasPrefix("CONNECT hub.example:443 ") })
        // user:pass!
        #expect(proxy.requests.allSatisfy { $0.contains("Basic dXNlcjpwYXNzIQ==") })
        await proxy.stop()
        await server.stop()
    }
}
