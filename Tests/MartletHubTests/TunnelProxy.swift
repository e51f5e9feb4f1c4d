// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import Synchronization

/// An HTTP proxy for `CONNECT` that leads every name to one port of this machine.
final class TunnelProxy: Sendable {
    private let channel: any Channel
    private let log: TextLog

    init(to port: Int) async throws {
        let log = TextLog()
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Tunnel(to: port, log: log))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.log = log
    }

    var port: Int { channel.localAddress?.port ?? 0 }
    /// First lines and credentials of what was asked.
    var requests: [String] { log.all }

    func stop() async { try? await channel.close() }

    /// Answers the first piece of a connection and passes on all others.
    private final class Tunnel: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        private let port: Int
        private let log: TextLog
        private var isOpen = false
        private var far: (any Channel)?
        private var waiting: [ByteBuffer] = []

        init(to port: Int, log: TextLog) {
            self.port = port
            self.log = log
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let piece = unwrapInboundIn(data)
            if let far {
                far.writeAndFlush(piece, promise: nil)
            } else if isOpen {
                waiting.append(piece)
            } else {
                isOpen = true
                connect(String(buffer: piece), context.channel)
            }
        }

        func channelInactive(context: ChannelHandlerContext) { far?.close(promise: nil) }

        private func connect(_ head: String, _ near: any Channel) {
            log.add(head)
            let this = NIOLoopBound(self, eventLoop: near.eventLoop)
            ClientBootstrap(group: near.eventLoop)
                .channelInitializer { far in
                    far.pipeline.addHandler(Echo(to: near))
                }
                .connect(host: "127.0.0.1", port: port).whenSuccess { far in
                    let reply = ByteBuffer(string: "HTTP/1.1 200 OK\r\n\r\n")
                    near.writeAndFlush(reply, promise: nil)
                    this.value.far = far
                    for piece in this.value.waiting { far.writeAndFlush(piece, promise: nil) }
                }
        }
    }

    /// Writes what arrives to another channel.
    private final class Echo: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        init(to other: any Channel) { self.other = other }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            other.writeAndFlush(unwrapInboundIn(data), promise: nil)
        }
        func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
    }
}
