// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// A GGUF file (version 2 or 3), memory-mapped.
///
/// Plain tensors are views of the file; Q8_0, Q4_0 and Q4_1 become canonical groups without loss.
/// Source: ggml's description of the format.
package struct GGUFFile: CheckpointSource {
    struct Entry: Sendable {
        let type: UInt32
        let shape: [Int]
        let offset: Int
    }

    /// Metadata by key.
    package let metadata: [String: GGUFValue]
    private let entries: [String: Entry]
    private let data: ByteView

    /// Opens a file.
    ///
    /// - Throws: `MartletError` `.corrupt` for a damaged file, `.notFound` or `.io` if it cannot be read.
    package init(path: String) throws {
        do {
            try self.init(bytes: MappedFile.map(path))
        } catch let error as MartletError {
            throw error.reading(path)
        }
    }

    /// Reads a file's bytes.
    ///
    /// - Throws: `MartletError` `.corrupt` for damaged content, `.unsupported` for other versions.
    package init(bytes: ByteView) throws {
        try GitLFSPointer.refuse(bytes)
        var metadata: [String: GGUFValue] = [:]
        var infos: [(String, Entry)] = []
        let header = try bytes.withUnsafeBytes { buffer in
            var reader = GGUFReader(buffer)
            guard try reader.read(UInt32.self) == 0x4655_4747 else {
                throw MartletError(.corrupt, "not a GGUF file: it does not begin with 'GGUF'")
            }
            let version = try reader.read(UInt32.self)
            guard version == 2 || version == 3 else {
                let isSwapped = 1...0xffff ~= version.byteSwapped
                throw MartletError(
                    .unsupported,
                    isSwapped
                        ? "a GGUF file written on a big-endian machine"
                        : "GGUF version \(version) is not known, 2 and 3 are",
                    mend: isSwapped
                        ? "Convert it on a little-endian machine"
                        : "Convert the model again with a current version of llama.cpp")
            }
            let tensorCount = try reader.count(elementSize: 24)
            let pairCount = try reader.count(elementSize: 12)
            for _ in 0..<pairCount {
                let key = try reader.name()
                guard metadata[key] == nil else {
                    throw reader.failure("key '\(key)' is given twice")
                }
                metadata[key] = try reader.value(type: try reader.read(UInt32.self))
            }
            for _ in 0..<tensorCount { infos.append(try Self.info(&reader)) }
            return reader.position
        }
        let alignment = metadata["general.alignment"]?.int ?? 32
        guard alignment > 0, alignment <= 1 << 20, alignment & (alignment - 1) == 0 else {
            throw MartletError(.corrupt, "GGUF: alignment \(alignment) is no power of two")
        }
        let start = (header + alignment - 1) & ~(alignment - 1)
        if infos.isEmpty {
            data = ByteView()
        } else {
            guard let rest = bytes.slice(start, count: bytes.count - start) else {
                throw MartletError(
                    .corrupt, "GGUF: the file ends before its data, at byte \(bytes.count)")
            }
            data = rest
        }
        try Self.check(infos, alignment: alignment, dataCount: data.count)
        entries = Dictionary(infos, uniquingKeysWith: { first, _ in first })
        guard entries.count == infos.count else {
            throw MartletError(.corrupt, "GGUF: two tensors have the same name")
        }
        self.metadata = metadata
    }

    private static func info(_ reader: inout GGUFReader) throws -> (String, Entry) {
        let name = try reader.name()
        let rank = try reader.read(UInt32.self)
        guard rank >= 1, rank <= 4 else {
            throw reader.failure("tensor '\(name)' has rank \(rank)")
        }
        var shape: [Int] = []
        for _ in 0..<rank {
            let size = try reader.read(UInt64.self)
            guard let size = Int(exactly: size) else {
                throw reader.failure("tensor '\(name)' has size \(size)")
            }
            shape.append(size)
        }
        let type = try reader.read(UInt32.self)
        guard let offset = Int(exactly: try reader.read(UInt64.self)),
            TensorData.elementCount(shape) != nil
        else { throw reader.failure("tensor '\(name)' is larger than memory") }
        // The first dimension in the file is the fastest-moving.
        return (name, Entry(type: type, shape: shape.reversed(), offset: offset))
    }

    private static func check(
        _ infos: [(String, Entry)], alignment: Int, dataCount: Int
    ) throws {
        var end = 0
        for (name, entry) in infos.sorted(by: { $0.1.offset < $1.1.offset }) {
            guard entry.offset % alignment == 0 else {
                throw MartletError(
                    .corrupt, "GGUF: tensor '\(name)' at \(entry.offset) is not aligned")
            }
            guard entry.offset >= end else {
                throw MartletError(.corrupt, "GGUF: tensor '\(name)' overlaps another")
            }
            // Unknown types are refused when asked for; their size is not known here.
            guard let type = GGUFTensorType(rawValue: entry.type) else { continue }
            guard let size = type.byteCount(entry.shape), size <= dataCount - entry.offset else {
                throw MartletError(
                    .corrupt,
                    "GGUF: tensor '\(name)' of shape \(entry.shape) does not lie inside the file",
                    mend: "The file may be cut short: fetch it again")
            }
            end = entry.offset + size
        }
    }

    package var names: [String] { entries.keys.sorted() }
    package func contains(_ name: String) -> Bool { entries[name] != nil }
    package func shape(of name: String) throws -> [Int] { try entry(name).0.shape }
    package func storage(of name: String) throws -> ElementFormat { try entry(name).1.format }

    package func weight(_ name: String) throws -> WeightValue {
        let (entry, type) = try entry(name)
        guard let size = type.byteCount(entry.shape),
            let bytes = data.slice(entry.offset, count: size)
        else { throw MartletError(.corrupt, "GGUF: tensor '\(name)' lies outside the file") }
        return try type.weight(bytes, shape: entry.shape)
    }

    private func entry(_ name: String) throws -> (Entry, GGUFTensorType) {
        guard let entry = entries[name] else {
            throw MartletError.missingTensor(name)
        }
        guard let type = GGUFTensorType(rawValue: entry.type) else {
            let known = GGUFTensorType.names[entry.type] ?? "number \(entry.type)"
            throw MartletError(
                .unsupported, "tensor '\(name)' has GGUF type \(known), which is not supported",
                mend: "Use a file with F32, F16, BF16, Q8_0, Q4_0 or Q4_1 tensors")
        }
        return (entry, type)
    }
}
