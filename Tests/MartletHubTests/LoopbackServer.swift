// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// An HTTP server on this machine that answers as a closure tells it.
final class LoopbackServer: Sendable {
    struct Request: Sendable {
        let method: HTTPMethod
        let path: String
        let headers: HTTPHeaders
    }

    struct Reply: Sendable {
        var status: HTTPResponseStatus = .ok
        var headers: [(String, String)] = []
        var body: [UInt8] = []
        /// Content-Length to state; nil states the body's.
        var statedLength: Int?
        /// Whether the length is left open and the body sent in chunks.
        var isChunked = false
        /// Closes the connection after that many bytes of the body.
        var cutAfter: Int?
        /// Sends only so many bytes of the body, then keeps the connection open and silent.
        var holdAfter: Int?
        /// Bytes per write, with a turn of the event loop between two; nil writes all at once.
        var pieceSize: Int?
    }

    private let channel: any Channel

    /// Starts a server.
    ///
    /// - Parameter tls: Certificate and key, for an `https` one.
    init(
        tls: NIOSSLContext? = nil, _ answer: @escaping @Sendable (Request, Int) -> Reply
    ) async throws {
        let record = Recorder()
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(
                            NIOSSLServerHandler(context: tls))
                    }
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(
                        Handler(record: record, answer: answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        recorder = record
    }

    private let recorder: Recorder

    var port: Int { channel.localAddress?.port ?? 0 }
    var endpoint: String { "http://127.0.0.1:\(port)" }
    var requests: [Request] { recorder.requests.withLock { $0 } }

    func stop() async { try? await channel.close() }

    final class Recorder: Sendable {
        let requests = Mutex<[Request]>([])

        func add(_ request: Request) -> Int {
            requests.withLock { requests in
                requests.append(request)
                return requests.count - 1
            }
        }
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let record: Recorder
        private let answer: @Sendable (Request, Int) -> Reply
        private var head: HTTPRequestHead?

        init(record: Recorder, answer: @escaping @Sendable (Request, Int) -> Reply) {
            self.record = record
            self.answer = answer
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head): self.head = head
            case .body: break
            case .end:
                guard let head else { return }
                let request = Request(method: head.method, path: head.uri, headers: head.headers)
                send(answer(request, record.add(request)), to: head, context)
            }
        }

        private func send(
            _ reply: Reply, to head: HTTPRequestHead, _ context: ChannelHandlerContext
        ) {
            var headers = HTTPHeaders(reply.headers)
            if reply.isChunked {
                headers.add(name: "Transfer-Encoding", value: "chunked")
            } else if !headers.contains(name: "Content-Length") {
                headers.add(
                    name: "Content-Length", value: String(reply.statedLength ?? reply.body.count))
            }
            context.write(
                wrapOutboundOut(
                    .head(.init(version: .http1_1, status: reply.status, headers: headers))),
                promise: nil)
            let channel = context.channel
            guard head.method != .HEAD else {
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
                return
            }
            if let limit = reply.holdAfter, limit < reply.body.count {
                let part = ByteBuffer(bytes: reply.body.prefix(limit))
                context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(part))), promise: nil)
                return
            }
            let body = reply.cutAfter.map { Array(reply.body.prefix($0)) } ?? reply.body
            let isCut = reply.cutAfter != nil || (reply.statedLength ?? body.count) != body.count
            Self.write(body[...], reply.pieceSize ?? max(1, body.count), isCut, channel)
        }

        /// Writes piece by piece so that a reader who goes away stops the rest.
        private static func write(
            _ rest: ArraySlice<UInt8>, _ size: Int, _ isCut: Bool, _ channel: any Channel
        ) {
            guard !rest.isEmpty else {
                if isCut {
                    channel.close(promise: nil)
                } else {
                    channel.writeAndFlush(HTTPServerResponsePart.end(nil), promise: nil)
                }
                return
            }
            let piece = HTTPServerResponsePart.body(
                .byteBuffer(ByteBuffer(bytes: rest.prefix(size))))
            channel.writeAndFlush(piece).whenSuccess {
                guard rest.count > size else { return write([], size, isCut, channel) }
                // About 40 MB/s for pieces of 8 KiB, so that a test can stop in the middle.
                channel.eventLoop.scheduleTask(in: .microseconds(200)) {
                    write(rest.dropFirst(size), size, isCut, channel)
                }
            }
        }
    }
}
