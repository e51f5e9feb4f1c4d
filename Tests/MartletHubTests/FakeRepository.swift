// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Crypto
import MartletCore
import MartletHub
import NIOHTTP1

/// A repository of several files on a server that plays both protocols.
struct FakeRepository: Sendable {
    static let name = "Owner/Model"
    static let commit = FakeHub.commit
    static let huggingFace = ModelReference.repository(HubRepository(name), nil)
    static let modelScope = ModelReference.repository(
        HubRepository(name, site: .modelScope), nil)

    /// Files by path.
    var files: [String: [UInt8]]
    /// Whether listings say lengths and hashes.
    var listsMetadata = true
    /// Bytes per write.
    var pieceSize: Int?
    /// What the search finds.
    var others: [String] = []

    /// A model in two shards beside much that is not needed.
    static func sharded(_ weightSize: Int = 200_000) -> FakeRepository {
        var files: [String: [UInt8]] = [:]
        for name in needed where !name.hasSuffix(".safetensors") {
            files[name] = Array(#"{"made-up": "\#(name)"}"#.utf8)
        }
        let shards = needed.filter { $0.hasSuffix(".safetensors") }
        for (index, name) in shards.enumerated() {
            files[name] = randomBytes(weightSize + index, seed: UInt64(31 + index))
        }
        let map = shards.enumerated().map { "\"w\($0.offset)\": \"\($0.element)\"" }
        files["model.safetensors.index.json"] = Array(
            "{\"weight_map\": {\(map.joined(separator: ", "))}}".utf8)
        for name in [
            "README.md", "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5",
            "model.Q4_K_M.gguf", "modeling_own.py", "original/consolidated.00.pth",
            "onnx/model.onnx", "adapter_model.safetensors", "consolidated.safetensors",
        ] { files[name] = Array("not needed: \(name)".utf8) }
        return FakeRepository(files: files)
    }

    /// What a pull of `sharded` brings.
    static let needed = [
        "chat_template.jinja", "config.json", "generation_config.json",
        "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors", "model.safetensors.index.json",
        "special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    ]

    var neededByteCount: Int { Self.needed.reduce(0) { $0 + (files[$1]?.count ?? 0) } }

    private static func isLarge(_ path: String) -> Bool {
        [".safetensors", ".bin", ".gguf", ".model"].contains { path.hasSuffix($0) }
    }

    /// Name of a file's content on Hugging Face.
    func etag(_ path: String) -> String {
        let content = files[path] ?? []
        if Self.isLarge(path) { return hexadecimal(SHA256.hash(data: content)) }
        let blob = Array("blob \(content.count)\0".utf8) + content
        return hexadecimal(Insecure.SHA1.hash(data: blob))
    }

    /// Answers both protocols.
    func answer(_ request: LoopbackServer.Request) -> LoopbackServer.Reply {
        let parts = request.path.split(separator: "?", maxSplits: 1).map(String.init)
        let path = percentDecoded(parts[0])
        var query: [String: String] = [:]
        for item in (parts.dropFirst().first ?? "").split(separator: "&") {
            let pair = item.split(separator: "=", maxSplits: 1).map { percentDecoded(String($0)) }
            if pair.count == 2 { query[pair[0]] = pair[1] }
        }
        if path == "/api/models" {
            return json(.array(others.map { .object([("id", .string($0))]) }))
        }
        for revision in ["main", Self.commit] {
            if path == "/api/models/\(Self.name)/revision/\(revision)" { return json(siblings) }
            if path.hasPrefix("/api/models/\(Self.name)/tree/\(revision)") { return json(tree) }
            if let file = path.droppingPrefix("/\(Self.name)/resolve/\(revision)/") {
                return content(file, request)
            }
        }
        if path == "/api/v1/models/\(Self.name)/repo/files" {
            return query["Revision"] == "master" ? json(scopeFiles) : missing("")
        }
        if path == "/api/v1/models/\(Self.name)/repo", query["Revision"] == "master" {
            return content(query["FilePath"] ?? "", request)
        }
        return missing(path.hasPrefix("/api/") ? "RepoNotFound" : "RevisionNotFound")
    }

    /// Paths of files whose bytes were asked for, in order.
    static func fetched(_ server: LoopbackServer) -> [String] {
        server.requests.filter { $0.method == .GET }.compactMap { request in
            let path = percentDecoded(request.path)
            return path.droppingPrefix("/\(name)/resolve/\(commit)/")
                ?? path.droppingPrefix("/api/v1/models/\(name)/repo?Revision=master&FilePath=")
        }
    }

    private func content(
        _ path: String, _ request: LoopbackServer.Request
    ) -> LoopbackServer.Reply {
        guard let bytes = files[path] else { return missing("EntryNotFound") }
        return FakeHub(content: bytes, etag: etag(path), pieceSize: pieceSize).answer(request)
    }

    private func missing(_ word: String) -> LoopbackServer.Reply {
        .init(status: .notFound, headers: [("X-Error-Code", word)])
    }

    private func json(_ value: JSONValue) -> LoopbackServer.Reply {
        .init(
            headers: [("Content-Type", "application/json")], body: Array(value.serialized().utf8))
    }

    private var paths: [String] { files.keys.sorted() }

    private func lfs(_ path: String) -> JSONValue {
        guard Self.isLarge(path) else { return .null }
        return .object([
            ("oid", .string(etag(path))), ("sha256", .string(etag(path))),
            ("size", .int(files[path]?.count ?? 0)), ("pointerSize", 134),
        ])
    }

    private var siblings: JSONValue {
        let list = paths.map { path -> JSONValue in
            guard listsMetadata else { return .object([("rfilename", .string(path))]) }
            return .object([
                ("rfilename", .string(path)), ("size", .int(files[path]?.count ?? 0)),
                ("blobId", .string(Self.isLarge(path) ? Self.commit : etag(path))),
                ("lfs", lfs(path)),
            ])
        }
        return .object([
            ("id", .string(Self.name)), ("modelId", .string(Self.name)),
            ("sha", .string(Self.commit)), ("private", false), ("tags", []), ("downloads", 0),
            ("likes", 0), ("siblings", .array(list)),
        ])
    }

    private var tree: JSONValue {
        .array(
            paths.map { path in
                var members: [(String, JSONValue)] = [
                    ("type", "file"), ("path", .string(path)),
                    ("size", .int(files[path]?.count ?? 0)),
                    ("oid", .string(Self.isLarge(path) ? Self.commit : etag(path))),
                ]
                if Self.isLarge(path) { members.append(("lfs", lfs(path))) }
                return .object(members)
            })
    }

    private var scopeFiles: JSONValue {
        let list = paths.map { path -> JSONValue in
            .object([
                ("Path", .string(path)), ("Type", "blob"),
                ("Size", .int(files[path]?.count ?? 0)),
                ("Sha256", .string(hexadecimal(SHA256.hash(data: files[path] ?? [])))),
            ])
        }
        let folder = JSONValue.object([("Path", "original"), ("Type", "tree"), ("Size", 0)])
        return .object([
            ("Code", 200), ("Data", .object([("Files", .array([folder] + list))])),
        ])
    }
}

extension JSONValue {
    /// An object of members in order.
    fileprivate static func object(_ members: [(String, JSONValue)]) -> JSONValue {
        .object(JSONObject(members))
    }
}
