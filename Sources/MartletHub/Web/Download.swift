// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import AsyncHTTPClient
import MartletCore
import NIOCore
import NIOHTTP1

/// Fetches one file into a partial file, resuming where an earlier run or connection ended.
struct Download {
    /// Bytes that must arrive between two failures for the count of failures to start anew.
    private static let progressByteCount = 1 << 20
    private static let attemptLimit = 200

    let client: HubClient
    let file: HubFile
    let metadata: HubMetadata
    /// The partial file; it stays where the fetch fails and the bytes may be used again.
    let path: String
    let meter: TransferMeter

    /// The server's content is not the one that was asked for.
    struct Changed: Error {}

    /// Fetches, hashes and checks.
    ///
    /// - Returns: SHA-256 and length of the complete partial file.
    /// - Throws: `MartletError`, `CancellationError`, `Changed` if the file is another by now.
    func run() async throws -> (sha256: String, byteCount: Int) {
        var state = try State(path, metadata)
        try reserve(state.offset)
        var hadPrefix = state.offset > 0
        meter.start(at: state.offset)
        while true {
            if metadata.byteCount == nil || state.offset != metadata.byteCount {
                try await fetch(&state)
            }
            client.observe(.verifying)
            try state.file.sync()
            let (sha256, mismatch) = state.hash.finish()
            guard let mismatch else { return (sha256, state.offset) }
            if hadPrefix {
                // Bytes of an earlier run are wrong: the fresh ones may be right.
                hadPrefix = false
                try state.restart()
                continue
            }
            try Disk.remove(path)
            throw MartletError(
                .corrupt,
                "\(file) arrived with hash \(mismatch.found), the hub names \(mismatch.wanted)",
                mend: "Pull again; if it repeats, a proxy or mirror alters the file",
                context: ["found": mismatch.found, "wanted": mismatch.wanted])
        }
    }

    /// A partial file with the hash of what it holds.
    private struct State: ~Copyable {
        let file: DiskFile
        let metadata: HubMetadata
        var hash: ContentHash
        var offset = 0
        /// Entity tag of the host that sends the bytes, once known.
        var senderTag: String?

        init(_ path: String, _ metadata: HubMetadata) throws {
            let file = try DiskFile(writing: path)
            var hash = ContentHash(metadata.expectation)
            var offset = 0
            if file.byteCount > metadata.byteCount ?? .max {
                try file.truncate()
            } else {
                try file.readAll { bytes in
                    hash.update(bytes)
                    offset += bytes.count
                }
            }
            self.file = file
            self.metadata = metadata
            self.hash = hash
            self.offset = offset
        }

        mutating func append(_ bytes: UnsafeRawBufferPointer) throws {
            try file.write(bytes)
            hash.update(bytes)
            offset += bytes.count
        }

        mutating func restart() throws {
            try file.truncate()
            hash = ContentHash(metadata.expectation)
            offset = 0
            senderTag = nil
        }
    }

    private func reserve(_ offset: Int) throws {
        guard let wanted = metadata.byteCount, let free = Disk.freeByteCount(at: path),
            wanted - offset > free
        else { return }
        throw MartletError(
            .io,
            "\(file) needs \(wanted - offset) more bytes, the disk of \(path) has \(free) free",
            mend: "Free some space, or set HF_HOME to a larger disk", context: ["file": path])
    }

    private func fetch(_ state: inout State) async throws {
        var repetition = 0
        var mark = state.offset
        for _ in 0..<Self.attemptLimit {
            do {
                return try await attempt(&state)
            } catch let failure as TransferFailure {
                if state.offset - mark >= Self.progressByteCount { repetition = 0 }
                mark = state.offset
                repetition += 1
                let retry = client.configuration.retry
                guard failure.isTransient, repetition <= retry.limit else { throw failure.error }
                try await client.pause(
                    retry.delay(
                        repetition: repetition, retryAfterSeconds: failure.retryAfterSeconds),
                    repetition, failure)
            }
        }
        throw MartletError(.network, "\(file): the connection broke \(Self.attemptLimit) times")
    }

    private func attempt(_ state: inout State) async throws {
        let address = try client.address(file, revision: metadata.commit)
        var headers = HTTPHeaders()
        if state.offset > 0 {
            headers.add(name: "Range", value: "bytes=\(state.offset)-")
            if let tag = state.senderTag { headers.add(name: "If-Range", value: "\"\(tag)\"") }
        }
        let response = try await client.web.send(.GET, address, headers: headers)
        try begin(response, &state)
        do {
            for try await buffer in response.body {
                try Task.checkCancellation()
                let count = buffer.readableBytes
                if let wanted = metadata.byteCount, count > wanted - state.offset {
                    try Disk.remove(path)
                    throw wrongLength(state.offset + count, wanted)
                }
                try buffer.withUnsafeReadableBytes { try state.append($0) }
                meter.advance(to: state.offset)
            }
        } catch {
            throw TransferFailure.describing(error, response.address)
        }
        if let wanted = metadata.byteCount, state.offset < wanted {
            throw TransferFailure(
                MartletError(
                    .network, "\(file) ended after \(state.offset) of \(wanted) bytes"),
                isTransient: true)
        }
    }

    /// Checks the head of an answer and brings the partial file to where its bytes belong.
    private func begin(_ response: WebClient.Response, _ state: inout State) throws {
        let tag = response.header("ETag").flatMap {
            $0.hasPrefix("W/") ? nil : HubClient.plainTag($0)
        }
        if let coding = response.header("Content-Encoding"), coding != "identity" {
            throw MartletError(
                .network, "\(response.address.host) sends \(file) encoded as \(coding), unasked")
        }
        switch response.status {
        case 206:
            if let known = state.senderTag, let tag, tag != known { throw Changed() }
            let range = try contentRange(response)
            guard range.start == state.offset, range.total == metadata.byteCount ?? range.total
            else {
                // A server that answers another range than asked for can still send the whole.
                try state.restart()
                throw TransferFailure(
                    MartletError(
                        .network,
                        "\(response.address.host) sends \(file) from byte \(range.start) of "
                            + "\(range.total)"), isTransient: true)
            }
        case 200:
            if let known = state.senderTag, let tag, tag != known { throw Changed() }
            if state.offset > 0 { try state.restart() }
            if let length = response.header("Content-Length").flatMap({ Int($0) }),
                let wanted = metadata.byteCount, length != wanted
            {
                try Disk.remove(path)
                throw wrongLength(length, wanted)
            }
        case 416:
            try state.restart()
            throw TransferFailure(
                MartletError(.network, "\(response.address.host) refuses the rest of \(file)"),
                isTransient: true)
        case 412: throw Changed()
        default: throw client.refusal(response, file)
        }
        state.senderTag = tag
    }

    private func contentRange(_ response: WebClient.Response) throws -> (start: Int, total: Int) {
        let text = response.header("Content-Range") ?? ""
        if let rest = text.droppingPrefix("bytes ") {
            let parts = rest.split(separator: "/")
            if parts.count == 2, let start = Int(parts[0].prefix { $0 != "-" }),
                let total = Int(parts[1])
            {
                return (start, total)
            }
        }
        throw TransferFailure(
            MartletError(
                .network, "\(response.address.host) sends a part without a usable Content-Range"),
            isTransient: false)
    }

    private func wrongLength(_ found: Int, _ wanted: Int) -> MartletError {
        MartletError(
            .corrupt, "\(file) comes with \(found) bytes or more, the hub announces \(wanted)",
            mend: "Pull again; if it repeats, a proxy or mirror alters the file")
    }
}
