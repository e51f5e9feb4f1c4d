// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// A checkpoint in several files, with an index that says which file holds which tensor.
struct ShardedCheckpoint: CheckpointSource {
    private let shards: [String: any CheckpointSource]
    /// File of each tensor.
    private let places: [String: String]

    /// Largest index, in bytes.
    private static let byteLimit = 32 << 20

    /// Paths of the shards that an index names, in order of their names.
    ///
    /// - Throws: `MartletError` `.corrupt` for damage, or a name that leaves the index's folder.
    static func files(index path: String) throws -> [String] {
        let folder = CheckpointFolder.folder(of: path)
        return Set(try places(path).values).sorted().map { folder + "/" + $0 }
    }

    /// Opens all shards.
    ///
    /// - Throws: `MartletError` naming a missing shard, or a tensor that is not where the index says.
    init(index path: String) throws {
        places = try Self.places(path)
        var shards: [String: any CheckpointSource] = [:]
        for file in try Self.files(index: path) {
            let name = FileStatus.name(file)
            let count = places.values.reduce(0) { $0 + ($1 == name ? 1 : 0) }
            guard FileStatus.exists(file) else {
                throw MartletError(
                    .notFound,
                    "\(path) names \(name) for \(count) tensors, but there is no such file",
                    mend: "Fetch \(name) into the same folder")
            }
            shards[name] = try CheckpointFolder.checkpoint(file)
        }
        for (tensor, file) in places where shards[file]?.contains(tensor) != true {
            throw MartletError(
                .corrupt, "\(path) places tensor '\(tensor)' in \(file), which does not hold it",
                mend: "Fetch the index and its shards again: they do not belong together")
        }
        self.shards = shards
    }

    private static func places(_ path: String) throws -> [String: String] {
        guard let index = try CheckpointText.object(path, byteLimit: byteLimit) else {
            throw MartletError(.notFound, "there is no \(path)")
        }
        guard let map = index["weight_map"]?.object, map.count > 0 else {
            throw MartletError(
                .corrupt, "\(path): 'weight_map' is missing or no object with members")
        }
        var places: [String: String] = [:]
        for member in map.members {
            guard let file = member.value.string else {
                throw MartletError(
                    .corrupt,
                    "\(path): 'weight_map' gives \(member.value.kind) for tensor '\(member.key)'")
            }
            // An index must not reach for files elsewhere.
            guard !file.contains("/"), !file.utf8.contains(0), file != ".", file != "..",
                file.hasSuffix(".safetensors") || file.hasSuffix(".bin")
            else {
                throw MartletError(
                    .corrupt,
                    "\(path): '\(file)' of tensor '\(member.key)' is no .safetensors or .bin file of "
                        + "the same folder")
            }
            places[member.key] = file
        }
        return places
    }

    var names: [String] { places.keys.sorted() }
    func contains(_ name: String) -> Bool { places[name] != nil }
    func shape(of name: String) throws -> [Int] { try shard(of: name).shape(of: name) }
    func storage(of name: String) throws -> ElementFormat {
        try shard(of: name).storage(of: name)
    }
    func weight(_ name: String) throws -> WeightValue { try shard(of: name).weight(name) }

    private func shard(of name: String) throws -> any CheckpointSource {
        guard let shard = places[name].flatMap({ shards[$0] }) else {
            throw MartletError.missingTensor(name)
        }
        return shard
    }
}
