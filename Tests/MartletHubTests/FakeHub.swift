// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore
import MartletHub
import NIOHTTP1
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A hub with one file, whose faults a test chooses.
struct FakeHub: Sendable {
    static let repository = "Owner/Model-GGUF"
    static let path = "model.Q4_1.gguf"
    static let commit = "0123456789abcdef0123456789abcdef01234567"

    /// The file's bytes.
    var content: [UInt8]
    /// Name of the content; nil takes its SHA-256.
    var etag: String?
    /// Where the bytes are sent from; nil sends them itself.
    var storage: String?
    /// Bytes per write, for tests that stop in the middle.
    var pieceSize: Int?

    var sha256: String { hexadecimal(SHA256.hash(data: content)) }
    var name: String { etag ?? sha256 }
    var file: HubFile { HubFile(HubRepository(Self.repository), Self.path) }
    static let reference = ModelReference.repository(HubRepository(repository), .file(path))

    /// What a sound hub answers.
    func answer(_ request: LoopbackServer.Request) -> LoopbackServer.Reply {
        if request.method == .HEAD {
            return .init(
                status: storage == nil ? .ok : .found,
                headers: [
                    ("X-Repo-Commit", Self.commit), ("X-Linked-Etag", "\"\(name)\""),
                    ("X-Linked-Size", String(content.count)), ("ETag", "\"pointer\""),
                ] + (storage.map { [("Location", "\($0)/object")] } ?? []), body: content)
        }
        if let storage {
            return .init(status: .found, headers: [("Location", "\(storage)/object")])
        }
        return bytes(request)
    }

    /// The bytes, or the part that was asked for.
    func bytes(_ request: LoopbackServer.Request) -> LoopbackServer.Reply {
        let tag = ("ETag", "\"\(name)\"")
        let wanted = request.headers.first(name: "If-Range").map { $0 == "\"\(name)\"" } ?? true
        guard let range = request.headers.first(name: "Range"), wanted,
            let start = Int(range.dropFirst("bytes=".count).dropLast())
        else { return .init(headers: [tag], body: content, pieceSize: pieceSize) }
        guard start < content.count else { return .init(status: .rangeNotSatisfiable) }
        return .init(
            status: .partialContent,
            headers: [
                tag, ("Content-Range", "bytes \(start)-\(content.count - 1)/\(content.count)"),
            ], body: Array(content[start...]), pieceSize: pieceSize)
    }
}

/// A folder of its own for a test, removed with the value.
final class TemporaryFolder: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/martlet-hub-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
    }

    deinit { if !path.isEmpty { try? Disk.removeTree(path) } }

    /// Time limits in seconds: the tests beside this one may keep every core for longer than a user would wait.
    static let patience = ["HF_HUB_ETAG_TIMEOUT": "300", "HF_HUB_DOWNLOAD_TIMEOUT": "300"]

    /// A hub client that keeps its cache here and meets no variable of the machine.
    func hub(
        _ endpoint: String, token: String? = nil, aliases: [ModelAlias] = [],
        environment: [String: String] = [:]
    ) -> Hub {
        var environment = environment
        environment["HOME"] = path
        environment["HF_ENDPOINT"] = endpoint
        environment["MODELSCOPE_ENDPOINT"] = endpoint
        environment["HF_TOKEN"] = token
        if environment["PATH"] == nil { environment["PATH"] = "\(path)/bin" }
        environment.merge(Self.patience) { asked, _ in asked }
        var configuration = HubConfiguration(environment: environment)
        configuration.connectTimeoutMilliseconds = 300_000
        configuration.retry.baseDelayMilliseconds = 5
        return Hub(configuration: configuration, aliases: aliases)
    }

    var cache: HubCache { HubCache(root: "\(path)/.cache/huggingface/hub") }
    var blobs: String { "\(cache.folder(FakeHub.repository))/blobs" }
    /// Names in the blobs folder.
    var blobNames: [String] { Disk.names(in: blobs) }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let target = "\(path)/\(name)"
        if let parent = Disk.parent(of: target) { try Disk.makeFolder(parent) }
        let file = try DiskFile(writing: target)
        try file.truncate()
        try bytes.withUnsafeBytes { try file.write($0) }
    }
}

/// Bytes of a seeded sequence; deflates badly, as weights do.
func randomBytes(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

/// All bytes of a file.
func contents(_ path: String) throws -> [UInt8] {
    try MappedFile.map(path).array(of: UInt8.self)
}

/// Collects the events of a pull.
final class EventLog: Sendable {
    private let events = Mutex<[PullEvent]>([])
    var observer: PullObserver { { event in self.events.withLock { $0.append(event) } } }
    var all: [PullEvent] { events.withLock { $0 } }
    var progress: [TransferProgress] {
        all.compactMap { if case .progress(let progress) = $0 { progress } else { nil } }
    }
    var retryCount: Int { all.count { if case .retry = $0 { true } else { false } } }
    var fileNames: [String] {
        all.compactMap { if case .file(let name, _) = $0 { name } else { nil } }
    }
    var fallbacks: [String] {
        all.compactMap { if case .fallback(_, let reason) = $0 { reason } else { nil } }
    }
}

/// Collects texts.
final class TextLog: Sendable {
    private let texts = Mutex<[String]>([])
    var all: [String] { texts.withLock { $0 } }
    func add(_ text: String) { texts.withLock { $0.append(text) } }
}
