// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Weights in Hugging Face's layout: which files there are, and which of them count.
enum CheckpointFolder {
    /// Names of weights, in the order in which they are looked for.
    private static let names = [
        "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ]

    /// The file or index that holds the weights of a folder.
    ///
    /// - Throws: `MartletError` `.notFound` naming what was looked for.
    static func weights(in folder: String) throws -> String {
        let paths = names.map { folder + "/" + $0 }
        guard let found = paths.first(where: FileStatus.exists) else {
            throw MartletError(
                .notFound, "\(folder) holds none of \(names.joined(separator: ", "))",
                mend: "Name a folder with config.json and weights, or a .gguf file")
        }
        return found
    }

    /// Whether a path names weights by itself, with the rest of the model in the same folder.
    static func isWeights(_ path: String) -> Bool {
        [".safetensors", ".bin", ".index.json"].contains { path.hasSuffix($0) }
    }

    /// The folder of a file.
    static func folder(of path: String) -> String {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        if parts.count == 1 { return "." }
        let folder = parts.dropLast().joined(separator: "/")
        return folder.isEmpty ? "/" : folder
    }

    /// Opens a file of weights or an index.
    ///
    /// - Throws: What the container's reader throws.
    static func checkpoint(_ path: String) throws -> any CheckpointSource {
        if path.hasSuffix(".index.json") { return try ShardedCheckpoint(index: path) }
        if path.hasSuffix(".bin") { return try PyTorchFile(path: path) }
        return try SafetensorsFile(path: path)
    }

    /// The weights' files, an index first; an index that cannot be read stands alone.
    static func files(of weights: String) -> [String] {
        guard weights.hasSuffix(".index.json") else { return [weights] }
        return [weights] + ((try? ShardedCheckpoint.files(index: weights)) ?? [])
    }
}
