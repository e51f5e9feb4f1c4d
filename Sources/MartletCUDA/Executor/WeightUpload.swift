// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Streams weights from a mapped file to the device through a ring of pinned buffers.
///
/// While one buffer is on its way, the next is filled from the file.
final class WeightUpload {
    private static let ringCount = 3
    private static let chunkLimit = 32 << 20
    /// Bytes that a thread copies at a time: one alone is slower than the bus.
    private static let pieceSize = 4 << 20

    /// A copy that threads share: they touch different bytes.
    private struct Piece: @unchecked Sendable {
        let from: UnsafeRawPointer
        let to: UnsafeMutableRawPointer
        let count: Int

        func copy(_ start: Int, _ size: Int) {
            (to + start).copyMemory(from: from + start, byteCount: min(size, count - start))
        }
    }

    private let ring: PinnedMemory
    private let chunk: Int
    private let events: [EventBox]
    private var next = 0

    /// Events are owners that cannot be copied; an array holds boxes.
    private final class EventBox {
        let event: CUDAEvent
        var isPending = false
        init(_ device: CUDADevice) throws(MartletError) { event = try CUDAEvent(device) }
    }

    init(_ device: CUDADevice, totalBytes: Int) throws(MartletError) {
        // All events are made before the ring is stored: a failure then destroys whole values only.
        events = try Self.makeEvents(device)
        chunk = min(Self.chunkLimit, max(4096, totalBytes))
        ring = try PinnedMemory(device, byteCount: Self.ringCount * chunk)
    }

    private static func makeEvents(_ device: CUDADevice) throws(MartletError) -> [EventBox] {
        var events: [EventBox] = []
        for _ in 0..<ringCount { events.append(try EventBox(device)) }
        return events
    }

    /// Enqueues the copy of bytes to an address.
    func copy(
        _ bytes: ByteView, to address: UInt64, on stream: borrowing CUDAStream
    ) throws(MartletError) {
        var done = 0
        while done < bytes.count {
            let count = min(chunk, bytes.count - done)
            let slot = events[next]
            if slot.isPending { try slot.event.synchronize() }
            let buffer = ring.base + next * chunk
            bytes.withUnsafeBytes { source in
                if let base = source.baseAddress {
                    let piece = Piece(from: base + done, to: buffer, count: count)
                    Parallel.forEach((count + Self.pieceSize - 1) / Self.pieceSize) { index in
                        piece.copy(index * Self.pieceSize, Self.pieceSize)
                    }
                }
            }
            try stream.copy(to: address + UInt64(done), from: buffer, count: count)
            try slot.event.record(on: stream)
            slot.isPending = true
            done += count
            next = (next + 1) % Self.ringCount
        }
    }
}
