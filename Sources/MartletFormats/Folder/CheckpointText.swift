// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// JSON files beside weights, and their bounds.
enum CheckpointText {
    /// Most values of a header or an index: what bounds its memory.
    static let valueLimit = 1 << 18
    /// Largest `config.json` and the like, in bytes.
    private static let byteLimit = 1 << 20

    /// The object in a file; nil if there is no such file.
    ///
    /// - Throws: `MartletError` `.corrupt` for other content, naming the file.
    static func object(_ path: String, byteLimit: Int = byteLimit) throws -> JSONObject? {
        try content(path, byteLimit: byteLimit) { bytes in
            let value = try JSONValue.parse(bytes, name: path, valueLimit: valueLimit)
            guard let object = value.object else {
                throw MartletError(.corrupt, "\(path) holds \(value.kind) where an object is due")
            }
            return object
        }
    }

    /// A text file; nil if there is no such file.
    ///
    /// - Throws: `MartletError` `.corrupt` for what is no UTF-8, naming the file.
    static func text(_ path: String) throws -> String? {
        try content(path, byteLimit: byteLimit) { bytes in
            guard let text = bytes.withUnsafeBytes({ String(validating: $0, as: UTF8.self) }) else {
                throw MartletError(.corrupt, "\(path) is no UTF-8")
            }
            return text
        }
    }

    private static func content<Content>(
        _ path: String, byteLimit: Int, _ read: (ByteView) throws -> Content
    ) throws -> Content? {
        guard FileStatus.exists(path) else { return nil }
        let bytes = try MappedFile.map(path)
        do {
            try GitLFSPointer.refuse(bytes)
            guard bytes.count <= byteLimit else {
                throw MartletError(
                    .corrupt, "\(path) has \(bytes.count) bytes, at most \(byteLimit) are read")
            }
            return try read(bytes)
        } catch let error as MartletError { throw error.reading(path) }
    }
}

extension MartletError {
    /// A failure of reading a model's file, with the file and what can be done about it.
    func reading(_ path: String) -> MartletError {
        let named = adding("file", path)
        return switch code {
        case .corrupt: named.mending("The file may be damaged or cut short: fetch it again")
        case .unsupported:
            named.mending("Fetch the model in another format: safetensors in bf16, or .gguf")
        default: named
        }
    }
}

/// Text files that stand for large ones in repositories cloned without their content.
enum GitLFSPointer {
    static func refuse(_ bytes: ByteView) throws {
        guard bytes.starts(with: Array("version https://git-lfs".utf8)) else { return }
        throw MartletError(
            .corrupt, "this is a Git LFS pointer, not the file itself", mend: "Run: git lfs pull")
    }
}
