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
        var state = try State(path, metadata, meter)
        var hadPrefix = state.offset > 0
        while true {
            if metadata.byteCount == nil || state.offset != metadata.byteCount {
                try await fetch(&state)
            }
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
        let meter: TransferMeter
        var hash: ContentHash
        var offset = 0
        /// Entity tag of the host that sends the bytes, once known.
        var senderTag: String?

        init(_ path: String, _ metadata: HubMetadata, _ meter: TransferMeter) throws {
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
            self.meter = meter
            self.hash = hash
            self.offset = offset
            meter.skip(offset)
        }

        mutating func append(_ bytes: UnsafeRawBufferPointer) throws {
            try file.write(bytes)
            hash.update(bytes)
            offset += bytes.count
            meter.advance(bytes.count)
        }

        mutating func restart() throws {
            try file.truncate()
            meter.skip(-offset)
            hash = ContentHash(metadata.expectation)
            offset = 0
            senderTag = nil
        }
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
        let address = try client.address(file.path, commit: metadata.commit)
        var headers = HTTPHeaders()
        if state.offset > 0 {
            headers.add(name: "Range", value: "bytes=\(state.offset)-")
            if let tag = state.senderTag { headers.add(name: "If-Range", value: "\"\(tag)\"") }
        }
        let response = try await client.web.send(.GET, address, headers: headers)
        try await begin(response, &state)
        do {
            for try await buffer in response.body {
                try Task.checkCancellation()
                let count = state.offset + buffer.readableBytes
                if let wanted = metadata.byteCount, count > wanted {
                    throw try wrongLength(count, wanted)
                }
                try buffer.withUnsafeReadableBytes { try state.append($0) }
            }
        } catch {
            throw TransferFailure.describing(error, response.address)
        }
        if let wanted = metadata.byteCount, state.offset < wanted {
            throw TransferFailure("\(file) ended after \(state.offset) of \(wanted) bytes")
        }
    }

    /// Checks the head of an answer and brings the partial file to where its bytes belong.
    private func begin(_ response: WebClient.Response, _ state: inout State) async throws {
        let host = response.address.host
        let tag = response.header("ETag").flatMap {
            $0.hasPrefix("W/") ? nil : HubClient.plainTag($0)
        }
        if let coding = response.header("Content-Encoding"), coding != "identity" {
            throw MartletError(.network, "\(host) sends \(file) encoded as \(coding), unasked")
        }
        if response.status == 200 || response.status == 206,
            let known = state.senderTag, let tag, tag != known
        {
            throw Changed()
        }
        switch response.status {
        case 206:
            // bytes START-END/TOTAL
            let text = response.header("Content-Range") ?? ""
            let range = text.split { !$0.isNumber }.compactMap { Int($0) }
            guard range.count == 3, range[0] == state.offset,
                range[2] == metadata.byteCount ?? range[2]
            else {
                // A server that answers another range than asked for can still send the whole.
                try state.restart()
                throw TransferFailure("\(host) sends '\(text.prefix(80))' of \(file)")
            }
        case 200:
            if state.offset > 0 { try state.restart() }
            if let length = response.header("Content-Length").flatMap({ Int($0) }),
                let wanted = metadata.byteCount, length != wanted
            {
                // A mirror that was cloned without Git LFS sends a line of text for the weights.
                if length <= LargeFilePointer.lengthLimit,
                    LargeFilePointer.isOne(try await client.web.bytes(response, limit: length))
                {
                    throw LargeFilePointer.error(file, sender: host)
                }
                throw try wrongLength(length, wanted)
            }
        case 416:
            try state.restart()
            throw TransferFailure("\(host) refuses the rest of \(file)")
        case 412: throw Changed()
        default: throw client.refusal(response, file.path)
        }
        state.senderTag = tag
    }

    /// The failure where more or fewer bytes come than announced; the partial file goes.
    private func wrongLength(_ found: Int, _ wanted: Int) throws -> MartletError {
        try Disk.remove(path)
        return MartletError(
            .corrupt, "\(file) comes with \(found) bytes or more, the hub announces \(wanted)",
            mend: "Pull again; if it repeats, a proxy or mirror alters the file")
    }
}
