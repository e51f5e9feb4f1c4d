// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Verifies the chunks of a body on several threads.
///
/// - Returns: The first chunk whose checksum is wrong or missing, or nil.
func firstDamagedChunk(of body: ByteView, _ checksums: [UInt32], threadCount: Int?) -> Int? {
    let chunkCount = EngineHeader.chunkCount(body.count)
    guard checksums.count == chunkCount else { return min(checksums.count, chunkCount) }
    let work = ChunkWork(chunkCount)
    onThreads(min(threadCount ?? Parallel.coreCount, chunkCount, 16)) {
        while let chunk = work.next() {
            let start = chunk * EngineHeader.chunkSize
            let count = min(EngineHeader.chunkSize, body.count - start)
            let crc = body.slice(start, count: count)?.withUnsafeBytes { bytes in
                mapAhead(bytes)
                return CRC32C.checksum(bytes)
            }
            if crc != checksums[chunk] { work.report(chunk) }
        }
    }
    return work.damaged
}

/// Chunks handed out to threads, and the lowest one found damaged.
private final class ChunkWork: Sendable {
    private let count: Int
    private let counter = Counter()
    private let lowest = Atomic<Int>(Int.max)

    init(_ count: Int) { self.count = count }

    func next() -> Int? {
        let chunk = counter.next()
        return chunk < count ? chunk : nil
    }

    func report(_ chunk: Int) { lowest.min(chunk, ordering: .relaxed) }

    var damaged: Int? {
        let chunk = lowest.load(ordering: .relaxed)
        return chunk == Int.max ? nil : chunk
    }
}

/// Runs the same work on the calling thread and `count - 1` others, and waits for all.
///
/// Fewer take part if the system refuses threads.
private func onThreads(_ count: Int, _ body: @escaping @Sendable () -> Void) {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let others = max(count - 1, 0)
    let threads = UnsafeMutablePointer<pthread_t>.allocate(capacity: max(others, 1))
    defer { threads.deallocate() }
    var started = 0
    for _ in 0..<others {
        let box = Unmanaged.passRetained(Box(body))
        let code = pthread_create(
            threads + started, nil,
            { argument in
                if let argument {
                    Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
                }
                return nil
            }, box.toOpaque())
        if code == 0 { started += 1 } else { box.release() }
    }
    body()
    for index in 0..<started { pthread_join(threads[index], nil) }
}

/// Maps a chunk's pages in one call instead of one fault per few pages; where the system cannot,
/// nothing is lost.
private func mapAhead(_ bytes: UnsafeRawBufferPointer) {
    #if os(Linux)
    let populateRead: Int32 = 22
    _ = madvise(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count, populateRead)
    #endif
}

/// 32 hexadecimal digits of two multiplicative hashes over all parts and their lengths.
func contentIdentity(_ parts: [ByteView]) -> String {
    var first: UInt64 = 0x243f_6a88_85a3_08d3
    var second: UInt64 = 0x1319_8a2e_0370_7344
    func mix(_ word: UInt64) {
        first = (first ^ word) &* 0x9e37_79b9_7f4a_7c15
        first ^= first >> 29
        second = (second ^ word) &* 0xc2b2_ae3d_27d4_eb4f
        second ^= second >> 31
    }
    for part in parts {
        mix(UInt64(part.count))
        part.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                var word: UInt64 = 0
                withUnsafeMutableBytes(of: &word) {
                    $0.copyBytes(from: bytes[offset..<min(offset + 8, bytes.count)])
                }
                mix(word.littleEndian)
                offset += 8
            }
        }
    }
    func digits(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
    return digits(first) + digits(second)
}
